// A Lambda fleet in one process: containers that start at once, each with its own connection.
//
//   node lambda.cjs client 100    new Client() in each of a container's invocations
//   node lambda.cjs pool 100      new Pool({ max: 1 }) outside the handler, kept between invocations
//
// Prints one line of JSON: containers without any error, those with one, and the first errors.
'use strict'

const pg = require('pg')
const { tls } = require('./scenario.cjs')

const INVOCATIONS = 3
const [style, containers] = [process.argv[2], Number(process.argv[3])]
const options = { ssl: tls() }

/** What a handler does: a query with a parameter, and a short transaction. */
async function handle(client, number) {
  const { rows } = await client.query('SELECT $1::int AS n', [number])
  if (rows[0].n !== number) throw new Error(`${rows[0].n} is another container's answer`)
  await client.query('BEGIN')
  await client.query('SELECT pg_sleep(0.01)')
  await client.query('COMMIT')
}

async function clientPerInvocation(number) {
  for (let invocation = 0; invocation < INVOCATIONS; invocation++) {
    const client = new pg.Client(options)
    // A connection that breaks later emits this too; without a listener the process would end.
    client.on('error', () => {})
    await client.connect()
    try {
      await handle(client, number)
    } finally {
      await client.end()
    }
  }
}

/** Resolved when every container has finished: until then none gives its connection up. */
let releaseAll
const allDone = new Promise((resolve) => { releaseAll = resolve })
let running = containers

async function poolOfOne(number) {
  const pool = new pg.Pool({ ...options, max: 1 })
  pool.on('error', () => {})
  try {
    for (let invocation = 0; invocation < INVOCATIONS; invocation++) {
      const client = await pool.connect()
      try {
        await handle(client, number)
      } finally {
        client.release()
      }
    }
  } finally {
    running -= 1
    if (running === 0) releaseAll()
    await allDone
    await pool.end()
  }
}

async function main() {
  const container = { client: clientPerInvocation, pool: poolOfOne }[style]
  const all = Array.from({ length: containers }, (_, number) => container(number))
  const outcomes = await Promise.allSettled(all)
  const errors = outcomes.filter(({ status }) => status === 'rejected').map(({ reason }) => reason)
  console.log(JSON.stringify({
    succeeded: containers - errors.length,
    failed: errors.length,
    errors: errors.slice(0, 5).map((error) => `${error.code}: ${error.message}`).join('; '),
  }))
}

main()
