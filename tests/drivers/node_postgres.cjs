// node-postgres (pg) against any server.
'use strict'

const assert = require('node:assert/strict')
const { pipeline } = require('node:stream/promises')
const { Readable } = require('node:stream')
const pg = require('pg')
const Cursor = require('pg-cursor')
const copy = require('pg-copy-streams')
const { CLIENTS, ROUNDS, said, tls, checkServers, bigText, main } = require('./scenario.cjs')

// The driver reads PGHOST and so on by itself; TLS with a file's authority it does not.
const options = { ssl: tls() }

async function withClient(body) {
  const client = new pg.Client(options)
  await client.connect()
  try {
    return await body(client)
  } finally {
    await client.end()
  }
}

const prepareTables = () =>
  withClient(async (client) => {
    await client.query('DROP TABLE IF EXISTS node_rows')
    await client.query('CREATE TABLE node_rows (id int PRIMARY KEY, body text)')
  })

const queries = () =>
  withClient(async (client) => {
    assert.deepEqual((await client.query('SELECT 1 AS one')).rows, [{ one: 1 }])
    const { rows } = await client.query(
      'SELECT $1::int + n AS n, $2::text AS t FROM generate_series(1, 3) n', [40, 'x'])
    assert.deepEqual(rows.map((row) => row.n), [41, 42, 43])
    const bytes = Buffer.from([0, 255])
    assert.deepEqual((await client.query('SELECT $1::bytea AS b', [bytes])).rows[0].b, bytes)
    const both = await client.query('SELECT 1 AS a; SELECT 2 AS a')
    assert.deepEqual(both.map((result) => result.rows[0].a), [1, 2])
    assert.equal((await client.query('')).command, null)
    said('queries')
  })

const preparedStatements = () =>
  withClient(async (client) => {
    for (let number = 0; number < 10; number++) {
      await client.query('BEGIN')
      const query = { name: 'twice', text: 'SELECT $1::int * 2 AS n', values: [number] }
      assert.equal((await client.query(query)).rows[0].n, number * 2)
      await client.query('COMMIT')
    }
    said('prepared statements')
  })

const transactions = () =>
  withClient(async (client) => {
    await client.query('BEGIN')
    await client.query("INSERT INTO node_rows VALUES (1, 'kept')")
    await client.query('COMMIT')
    await client.query('BEGIN')
    await client.query("INSERT INTO node_rows VALUES (2, 'lost')")
    await client.query('ROLLBACK')
    const { rows } = await client.query('SELECT id FROM node_rows')
    assert.deepEqual(rows, [{ id: 1 }])
    await client.query('BEGIN')
    const cursor = client.query(new Cursor('SELECT n FROM generate_series(1, 100) n'))
    let total = 0
    for (;;) {
      const some = await cursor.read(10)
      if (some.length === 0) break
      total += some.reduce((sum, row) => sum + row.n, 0)
    }
    assert.equal(total, 5050)
    await cursor.close()
    await client.query('COMMIT')
    said('transactions')
  })

const failures = () =>
  withClient(async (client) => {
    for (let round = 0; round < 3; round++) {
      await assert.rejects(client.query('SELECT * FROM missing_table'), { code: '42P01' })
      await assert.rejects(client.query('SELECT 1 / $1::int', [0]), { code: '22012' })
      const named = { name: 'divide', text: 'SELECT 1 / $1::int AS n' }
      await assert.rejects(client.query({ ...named, values: [0] }), { code: '22012' })
      assert.equal((await client.query({ ...named, values: [1] })).rows[0].n, 1)
      await assert.rejects(client.query({ name: `bad ${round}`, text: 'SELEC 1' }), { code: '42601' })
      await client.query('BEGIN')
      await assert.rejects(client.query('SELECT 1 / 0'), { code: '22012' })
      await assert.rejects(client.query('SELECT 1'), { code: '25P02' })
      await client.query('ROLLBACK')
    }
    said('failures')
  })

// The driver queues: these leave as fast as the replies come.
const queues = () =>
  withClient(async (client) => {
    const all = Array.from({ length: 200 }, (_, n) => client.query('SELECT $1::int AS n', [n]))
    const results = await Promise.all(all)
    assert.deepEqual(results.map(({ rows }) => rows[0].n), [...all.keys()])
    said('queues')
  })

const copies = () =>
  withClient(async (client) => {
    const lines = Array.from({ length: 10_000 }, (_, n) => `${20_000 + n}\tcopied\n`)
    await pipeline(Readable.from(lines), client.query(copy.from('COPY node_rows FROM STDIN')))
    const out = client.query(copy.to('COPY (SELECT id FROM node_rows WHERE id >= 20000) TO STDOUT'))
    let text = ''
    for await (const piece of out) text += piece
    assert.equal(text.split('\n').length - 1, 10_000)
    const bad = client.query(copy.from('COPY node_rows FROM STDIN'))
    await assert.rejects(pipeline(Readable.from(['no number\tx\n']), bad), { code: '22P02' })
    assert.equal((await client.query('SELECT 1 AS n')).rows[0].n, 1)
    said('copies')
  })

const bigValues = () =>
  withClient(async (client) => {
    const text = bigText()
    assert.equal((await client.query('SELECT $1::text AS t', [text])).rows[0].t, text)
    const { rows } = await client.query("SELECT repeat('y', $1::int) AS t", [text.length])
    assert.equal(rows[0].t, 'y'.repeat(text.length))
    said('big values')
  })

const cancels = () =>
  withClient(async (client) => {
    for (let round = 0; round < 3; round++) {
      const query = new pg.Query('SELECT pg_sleep(30)')
      const outcome = new Promise((resolve) => {
        query.on('error', resolve)
        query.on('end', () => resolve(new Error('not cancelled')))
      })
      client.query(query)
      setTimeout(() => new pg.Client(options).cancel(client, query), 300)
      assert.equal((await outcome).code, '57014')
      assert.equal((await client.query('SELECT 1 AS n')).rows[0].n, 1)
    }
    said('cancels')
  })

async function manyClients() {
  const processIds = []
  const one = (number) =>
    withClient(async (client) => {
      for (let round = 0; round < ROUNDS; round++) {
        await client.query('BEGIN')
        const text = 'SELECT $1::int AS n, pg_backend_pid() AS pid'
        const { rows: [row] } = await client.query({ name: 'who', text, values: [number] })
        assert.equal(row.n, number)
        processIds.push(row.pid)
        const again = await client.query('SELECT pg_backend_pid() AS pid')
        assert.equal(again.rows[0].pid, row.pid, 'the server changed inside a transaction')
        await client.query('COMMIT')
      }
    })
  await Promise.all(Array.from({ length: CLIENTS }, (_, number) => one(number)))
  assert.equal(processIds.length, CLIENTS * ROUNDS)
  checkServers(processIds)
  said('many clients')
}

async function pools() {
  const pool = new pg.Pool({ ...options, max: 5 })
  const all = Array.from({ length: 100 }, (_, n) => pool.query('SELECT $1::int AS n', [n]))
  assert.deepEqual((await Promise.all(all)).map(({ rows }) => rows[0].n), [...all.keys()])
  await pool.end()
  said('pools')
}

main([prepareTables, queries, preparedStatements, transactions, failures, queues, copies, bigValues,
  cancels, manyClients, pools])
