// What the Node.js drivers' scripts share: sizes, and what all of them expect.
'use strict'

const assert = require('node:assert/strict')
const fs = require('node:fs')

const CLIENTS = 20
const ROUNDS = 10
const BIG = 5 * 1024 * 1024
const SERVERS_MAX = Number(process.env.TEST_SERVERS_MAX ?? CLIENTS)

function said(name) {
  console.log('passed:', name)
}

/** Options for tls.connect, or false. */
function tls() {
  const authority = process.env.PGSSLROOTCERT
  return authority ? { ca: fs.readFileSync(authority, 'utf8'), servername: 'localhost' } : false
}

/** The servers that all clients together were seen on. */
function checkServers(processIds) {
  const distinct = new Set(processIds).size
  assert.ok(distinct <= SERVERS_MAX, `${distinct} servers, ${SERVERS_MAX} allowed`)
}

/** Text of BIG characters that is not the same everywhere. */
function bigText() {
  const line = Array.from({ length: 1021 }, (_, at) => String.fromCharCode(97 + (at % 26))).join('')
  return line.repeat(Math.ceil(BIG / line.length)).slice(0, BIG)
}

async function main(scenarios) {
  for (const scenario of scenarios) await scenario()
  console.log('all passed')
}

module.exports = { CLIENTS, ROUNDS, said, tls, checkServers, bigText, main }
