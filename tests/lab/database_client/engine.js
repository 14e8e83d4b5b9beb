#!/usr/bin/env node
'use strict';
const fs = require('fs'), http = require('http'), path = require('path');
const COMMIT = '393aa359c9ad4a4bb28630fb5613f9c281cde053';
if (process.argv.includes('--version')) { console.log('query-engine ' + COMMIT); process.exit(0); }
const { parse } = require('graphql');
const { Pool } = require('pg');
const { PrismaPg } = require('@prisma/adapter-pg');
const { bindAdapter } = require('@prisma/driver-adapter-utils');
const runtime = path.dirname(require.resolve('@prisma/client/package.json')) + '/runtime/';
const bg = require(runtime + 'query_engine_bg.postgresql.js');
const wasm = new WebAssembly.Module(fs.readFileSync(runtime + 'query_engine_bg.postgresql.wasm'));
bg.__wbg_set_wasm(new WebAssembly.Instance(wasm, { './query_engine_bg.js': bg }).exports);

const port = Number(process.argv[process.argv.indexOf('-p') + 1]);
const datamodel = fs.readFileSync(process.env.PRISMA_DML_PATH, 'utf8').replace(
  /generator \w+ \{[^}]*\}/, 'generator client {\n provider = "prisma-client-js"\n previewFeatures = ["driverAdapters"]\n}');
let url = process.env.DATABASE_URL;
if (process.env.OVERWRITE_DATASOURCES) url = JSON.parse(process.env.OVERWRITE_DATASOURCES)[0].url;

// In GraphQL, JSON is a string as any other; the engine's own protocol wants it marked.
const JSON_FIELDS = Object.fromEntries([...datamodel.matchAll(/^model (\w+) \{([^]*?)^\}/gm)].map(([, model, body]) =>
  [model, new Set([...body.matchAll(/^\s*(\w+)\s+Json\b/gm)].map((match) => match[1]))]));
function marked(node, fields, inside) {
  if (typeof node === 'string') return inside ? { $type: 'Json', value: node } : node;
  if (node === null || typeof node !== 'object' || '$type' in node) return node;
  if (Array.isArray(node)) return node.map((one) => marked(one, fields, inside));
  return Object.fromEntries(Object.entries(node).map(([name, one]) =>
    [name, marked(one, fields, fields.has(name) || (inside && ['equals', 'not', 'set'].includes(name)))]));
}

const ACTIONS = ['findUnique', 'findUniqueOrThrow', 'findFirst', 'findFirstOrThrow', 'findMany', 'createOne', 'createMany',
  'updateOne', 'updateMany', 'deleteOne', 'deleteMany', 'upsertOne', 'aggregate', 'groupBy'];
function value(node) {
  switch (node.kind) {
    case 'NullValue': return null;
    case 'IntValue': return Number.isSafeInteger(Number(node.value)) ? Number(node.value) : { $type: 'BigInt', value: node.value };
    case 'FloatValue': return Number(node.value);
    case 'ListValue': return node.values.map(value);
    case 'ObjectValue': return object(node.fields);
    default: return node.value;
  }
}
function object(fields) { return Object.fromEntries(fields.map((f) => [f.name.value, value(f.value)])); }
function field(node) {
  const args = object(node.arguments || []);
  const selection = {};
  for (const one of node.selectionSet?.selections ?? []) {
    selection[one.name.value] = one.selectionSet || one.arguments?.length ? field(one) : true;
  }
  return Object.keys(args).length ? { arguments: args, selection } : { selection };
}
function translate(text) {
  const root = parse(text).definitions[0].selectionSet.selections[0];
  const name = root.name.value, query = field(root);
  if (name === 'queryRaw' || name === 'executeRaw') return { action: name, query: { arguments: query.arguments, selection: {} }, key: root.alias?.value ?? name };
  const action = ACTIONS.filter((a) => name.startsWith(a)).sort((a, b) => b.length - a.length)[0];
  const modelName = name.slice(action.length);
  if (query.arguments) query.arguments = marked(query.arguments, JSON_FIELDS[modelName] ?? new Set(), false);
  return { action, modelName, query, key: root.alias?.value ?? name };
}
function plain(node) {
  if (Array.isArray(node)) return node.map(plain);
  if (node === null || typeof node !== 'object') return node;
  if ('$type' in node) return node.$type === 'Raw' ? node.value : plain(node.value);
  return Object.fromEntries(Object.entries(node).map(([k, v]) => [k, plain(v)]));
}
function unpack(result) {
  if (!result || !Array.isArray(result.columns) || !Array.isArray(result.types)) return result;
  const json = result.types.map((type) => type === 'json');
  return { ...result, rows: result.rows.map((row) => row.map((cell, i) => (json[i] && typeof cell === 'string' ? JSON.parse(cell) : cell))) };
}
function answer(one, key) {
  if (!one.data) return one;
  return { data: { [key]: unpack(plain(Object.values(one.data)[0])) } };
}
async function main() {
  const pool = new Pool({ connectionString: url });
  const adapter = bindAdapter(new PrismaPg(pool, {}));
  const engine = new bg.QueryEngine({ datamodel, env: process.env, logQueries: false, ignoreEnvVarErrors: true,
    datasourceOverrides: {}, logLevel: 'error', configDir: '.', engineProtocol: 'json' }, () => {}, adapter);
  await engine.connect('{}');
  async function handle(request, body) {
    const u = new URL(request.url, 'http://x');
    const id = request.headers['x-transaction-id'];
    if (u.pathname === '/status') return { status: 'ok' };
    if (u.pathname === '/transaction/start') return JSON.parse(await engine.startTransaction(JSON.stringify(body), '{}'));
    const tx = u.pathname.match(/^\/transaction\/([^/]+)\/(commit|rollback)$/);
    if (tx) return JSON.parse(await engine[tx[2] + 'Transaction'](tx[1], '{}'));
    const wanted = (body.batch ?? [body]).map((one) => translate(one.query));
    const clean = wanted.map(({ key, ...rest }) => rest);
    const query = body.batch ? { batch: clean, transaction: body.transaction ? {} : undefined } : clean[0];
    const result = JSON.parse(await engine.query(JSON.stringify(query), '{}', id));
    if (process.env.ENGINE_TRACE) console.error(JSON.stringify({ body, query, result }));
    if (result.errors) {
      for (const error of result.errors) {
        const kind = error.user_facing_error?.meta?.id;
        if (kind !== undefined) { const real = adapter.errorRegistry.consumeError(kind); error.error = String(real?.error?.message ?? error.error); }
      }
    }
    if (body.batch) return result.batchResult ? { batchResult: result.batchResult.map((one, i) => answer(one, wanted[i].key)) } : result;
    return answer(result, wanted[0].key);
  }
  http.createServer((request, response) => {
    const parts = [];
    request.on('data', (p) => parts.push(p));
    request.on('end', async () => {
      let out;
      try { out = await handle(request, parts.length ? JSON.parse(Buffer.concat(parts)) : {}); }
      catch (error) { console.error(error, Buffer.concat(parts).toString()); out = { errors: [{ error: String(error), user_facing_error: { is_panic: false, message: String(error) } }] }; }
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(JSON.stringify(out));
    });
  }).listen(port, '127.0.0.1');
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(0));
}
main().catch((error) => { console.error(error); process.exit(1); });
