// What the scripts of the Node.js ORMs share.
'use strict'

const CLIENTS = 6
const ROUNDS = 5

const server = {
  host: process.env.PGHOST,
  port: Number(process.env.PGPORT),
  user: process.env.PGUSER,
  password: process.env.PGPASSWORD,
  database: process.env.PGDATABASE,
}

/** Runs `client(number)` for all clients at once. */
const atOnce = (client) => Promise.all(Array.from({ length: CLIENTS }, (_, number) => client(number)))

module.exports = { CLIENTS, ROUNDS, server, atOnce }
