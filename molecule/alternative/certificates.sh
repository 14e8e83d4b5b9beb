#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
#
# certificates.sh DIRECTORY HOST NAME ADDRESS OCSP-URL
#
# What others provide. A CA that names its responder: the certificate of HOST, and the responder's index
# (ca.txt). A CA of clients: partner, leaver (revoked) and its list. And one of the same name: stranger.
set -eu
umask 077
mkdir -p "$1"
cd "$1"
openssl ecparam -name prime256v1 -out p256.pem
keys=rsa:3072

authority() { # FILE NAME
  openssl req -x509 -newkey "$keys" -nodes -days 30 -subj "/CN=$2" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature \
    -keyout "$1.key" -out "$1.crt"
  printf '%s\n' '[ca]' 'default_ca=own' '[own]' "database=$1.txt" 'default_md=sha256' \
    'default_crl_days=20' >"$1.cnf"
  : >"$1.txt"
}

certificate() { # FILE SUBJECT CA EXTENSION…
  file=$1 subject=$2 ca=$3
  shift 3
  openssl req -new -newkey "$keys" -nodes -subj "$subject" -keyout "$file.key" -out request.pem
  printf '%s\n' "$@" basicConstraints=critical,CA:FALSE keyUsage=critical,digitalSignature \
    authorityKeyIdentifier=keyid >extensions.cnf
  openssl x509 -req -in request.pem -CA "$ca.crt" -CAkey "$ca.key" -CAcreateserial -days 20 \
    -extfile extensions.cnf -out "$file.crt"
}

by() { # CA WORD…: openssl ca, with this CA's own files
  ca=$1
  shift
  openssl ca -config "$ca.cnf" -keyfile "$ca.key" -cert "$ca.crt" "$@"
}

authority ca 'Corporate CA'
certificate "$2" /CN=gateway ca "subjectAltName=DNS:$3,IP:$4" extendedKeyUsage=serverAuth \
  "authorityInfoAccess=OCSP;URI:$5"
by ca -valid "$2.crt"

keys=ec:p256.pem
authority clients-ca "Partners' CA"
authority other-ca "Partners' CA"
for client in partner leaver; do
  certificate "$client" "/O=A partner/CN=$client" clients-ca extendedKeyUsage=clientAuth
  openssl x509 -in "$client.crt" -outform DER | sha256sum | cut -d ' ' -f 1 >"$client.sha256"
done
certificate stranger '/O=A partner/CN=partner' other-ca extendedKeyUsage=clientAuth
by clients-ca -revoke leaver.crt
by clients-ca -gencrl -out clients-ca.crl
