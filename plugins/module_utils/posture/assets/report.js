// SPDX-License-Identifier: GPL-3.0-or-later
// The filter. Without it everything is shown; its state is in the address, so it can be shared.
"use strict";
(() => {
  const form = document.getElementById("filter");
  const shown = document.getElementById("shown");
  const groups = [...document.querySelectorAll("details.c")];
  const hosts = [...document.querySelectorAll("section.host")];
  const severities = ["info", "low", "medium", "high", "critical"];
  const rows = [...document.querySelectorAll("li.f")].map((element) => ({
    element,
    group: element.closest("details.c"),
    host: element.closest("section.host"),
    text: null,
  }));
  const boxes = [...form.querySelectorAll("input[name=result]")];
  const fields = ["host", "control", "severity", "status", "text"]
    .map((name) => form.elements[name])
    .filter(Boolean);

  function wishes() {
    const wish = Object.fromEntries(fields.map((field) => [field.name, field.value.trim()]));
    wish.result = boxes.filter((box) => box.checked).map((box) => box.value);
    wish.text = wish.text.toLowerCase();
    return wish;
  }

  function matches(row, wish) {
    const { o, s, n } = row.element.dataset;
    if (!wish.result.includes(o)) return false;
    if (wish.host && row.host.dataset.h !== wish.host) return false;
    if (wish.control && row.group.dataset.c !== wish.control) return false;
    if (wish.severity && severities.indexOf(s) < severities.indexOf(wish.severity)) return false;
    if (wish.status && n !== wish.status) return false;
    if (!wish.text) return true;
    row.text ??= row.element.textContent.toLowerCase();
    return row.text.includes(wish.text);
  }

  // Groups in which nothing is wrong are closed, unless somebody looks for something.
  function open(group, active) {
    group.open = active || group.dataset.bad === "1";
  }

  function apply() {
    const wish = wishes();
    const active = wish.result.length < boxes.length || fields.some((field) => field.value.trim());
    const alive = new Set();
    let count = 0;
    for (const row of rows) {
      const match = matches(row, wish);
      row.element.hidden = !match;
      if (match) {
        count += 1;
        alive.add(row.group).add(row.host);
      }
    }
    for (const group of groups) {
      group.hidden = !alive.has(group);
      open(group, active);
    }
    for (const host of hosts) host.hidden = active && !alive.has(host);
    form.classList.toggle("on", active);
    shown.textContent = active
      ? `${count} of ${rows.length} findings shown`
      : `all ${rows.length} findings shown`;
  }

  function remember() {
    const state = new URLSearchParams();
    for (const field of fields) if (field.value.trim()) state.set(field.name, field.value.trim());
    const checked = boxes.filter((box) => box.checked);
    if (checked.length < boxes.length) {
      state.set("result", checked.map((box) => box.value).join(","));
    }
    // "#" alone would leave the last state in the address
    history.replaceState(null, "", `#${state}`);
  }

  function reset() {
    for (const field of fields) field.value = "";
    for (const box of boxes) box.checked = true;
  }

  function reveal(id) {
    const group = document.getElementById(id);
    if (!group || !groups.includes(group)) return;
    if (group.hidden) {
      reset();
      apply();
    }
    group.open = true;
    group.scrollIntoView();
    group.querySelector("summary").focus({ preventScroll: true });
  }

  function fromAddress() {
    const fragment = location.hash.slice(1);
    if (fragment && !fragment.includes("=")) {
      reveal(decodeURIComponent(fragment));
      return;
    }
    const state = new URLSearchParams(fragment);
    reset();
    for (const field of fields) field.value = state.get(field.name) ?? "";
    if (state.has("result")) {
      const wanted = state.get("result").split(",");
      for (const box of boxes) box.checked = wanted.includes(box.value);
    }
    apply();
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    apply();
    remember();
  });
  document.getElementById("reset").addEventListener("click", () => {
    reset();
    apply();
    remember();
  });
  for (const [id, state] of [["expand", true], ["collapse", false]]) {
    document.getElementById(id).addEventListener("click", () => {
      for (const group of groups) group.open = state;
    });
  }

  let closed = [];
  addEventListener("beforeprint", () => {
    closed = groups.filter((group) => !group.open);
    for (const group of closed) group.open = true;
  });
  addEventListener("afterprint", () => {
    for (const group of closed) group.open = false;
  });
  addEventListener("hashchange", fromAddress);

  form.hidden = false;
  apply();
  fromAddress();
})();
