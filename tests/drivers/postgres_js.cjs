// postgres.js against any server. It pipelines by itself and prepares everything.
'use strict'

const assert = require('node:assert/strict')
const { pipeline } = require('node:stream/promises')
const { Readable } = require('node:stream')
const postgres = require('postgres')
const { CLIENTS, ROUNDS, said, tls, checkServers, bigText, main } = require('./scenario.cjs')

const options = { ssl: tls(), onnotice: () => {} }

async function withClient(body, more = {}) {
  const sql = postgres({ max: 1, ...options, ...more })
  try {
    return await body(sql)
  } finally {
    await sql.end({ timeout: 5 })
  }
}

const prepareTables = () =>
  withClient(async (sql) => {
    await sql`DROP TABLE IF EXISTS postgres_js_rows`
    await sql`CREATE TABLE postgres_js_rows (id int PRIMARY KEY, body text)`
  })

const queries = () =>
  withClient(async (sql) => {
    assert.deepEqual([...(await sql`SELECT 1 AS one`)], [{ one: 1 }])
    const rows = await sql`SELECT ${40}::int + n AS n FROM generate_series(1, 3) n`
    assert.deepEqual(rows.map((row) => row.n), [41, 42, 43])
    const bytes = Buffer.from([0, 255])
    assert.deepEqual((await sql`SELECT ${bytes}::bytea AS b`)[0].b, bytes)
    const both = await sql`SELECT 1 AS a; SELECT 2 AS a`.simple()
    assert.deepEqual(both.map((result) => result[0].a), [1, 2])
    assert.deepEqual((await sql`SELECT ${sql.array([1, 2])}::int[] AS a`)[0].a, [1, 2])
    said('queries')
  })

const preparedStatements = async () => {
  const body = async (sql) => {
    for (let number = 0; number < 10; number++) {
      const [row] = await sql.begin((inside) => inside`SELECT ${number}::int * 2 AS n`)
      assert.equal(row.n, number * 2)
    }
  }
  await withClient(body)
  await withClient(body, { prepare: false })
  said('prepared statements')
}

const transactions = () =>
  withClient(async (sql) => {
    await sql.begin(async (inside) => {
      await inside`INSERT INTO postgres_js_rows VALUES (1, 'kept')`
      const lost = inside.savepoint(async (deeper) => {
        await deeper`INSERT INTO postgres_js_rows VALUES (2, 'lost')`
        await deeper`SELECT 1 / 0`
      })
      await assert.rejects(lost, { code: '22012' })
    })
    const failing = sql.begin(async (inside) => {
      await inside`INSERT INTO postgres_js_rows VALUES (3, 'lost')`
      throw new Error('as the test wants it')
    })
    await assert.rejects(failing, /as the test wants it/)
    assert.deepEqual([...(await sql`SELECT id FROM postgres_js_rows`)], [{ id: 1 }])
    let total = 0
    await sql`SELECT n FROM generate_series(1, 100) n`.cursor(10, (rows) => {
      total += rows.reduce((sum, row) => sum + row.n, 0)
    })
    assert.equal(total, 5050)
    said('transactions')
  })

const failures = () =>
  withClient(async (sql) => {
    for (let round = 0; round < 3; round++) {
      await assert.rejects(sql`SELECT * FROM missing_table`, { code: '42P01' })
      await assert.rejects(sql`SELECT 1 / ${0}::int AS n`, { code: '22012' })
      assert.equal((await sql`SELECT 1 / ${1}::int AS n`)[0].n, 1)
    }
    said('failures')
  })

const pipelines = () =>
  withClient(async (sql) => {
    const all = Array.from({ length: 200 }, (_, n) =>
      n % 10 === 7 ? sql`SELECT 1 / ${0}::int AS n` : sql`SELECT ${n}::int AS n`)
    const outcomes = await Promise.allSettled(all)
    outcomes.forEach((outcome, n) => {
      if (n % 10 === 7) assert.equal(outcome.reason.code, '22012')
      else assert.equal(outcome.value[0].n, n)
    })
    const inserts = Array.from({ length: 500 }, (_, n) => ({ id: 1000 + n, body: `many ${n}` }))
    await sql`INSERT INTO postgres_js_rows ${sql(inserts)}`
    said('pipelines')
  })

const copies = () =>
  withClient(async (sql) => {
    const lines = Array.from({ length: 10_000 }, (_, n) => `${20_000 + n}\tcopied\n`)
    await pipeline(Readable.from(lines), await sql`COPY postgres_js_rows FROM STDIN`.writable())
    // Fewer than fill the stream's buffer: postgres.js pauses its socket when that is full, and never
    // resumes it if the end of the copy came in the same read.
    const out = await sql`COPY (SELECT id FROM postgres_js_rows WHERE id >= 29000) TO STDOUT`.readable()
    let text = ''
    for await (const piece of out) text += piece
    assert.equal(text.split('\n').length - 1, 1_000)
    assert.equal((await sql`SELECT 1 AS n`)[0].n, 1)
    said('copies')
  })

const bigValues = () =>
  withClient(async (sql) => {
    const text = bigText()
    assert.equal((await sql`SELECT ${text}::text AS t`)[0].t, text)
    const [row] = await sql`SELECT repeat('y', ${text.length}::int) AS t`
    assert.equal(row.t, 'y'.repeat(text.length))
    said('big values')
  })

const cancels = () =>
  withClient(async (sql) => {
    for (let round = 0; round < 3; round++) {
      const query = sql`SELECT pg_sleep(30)`
      setTimeout(() => query.cancel(), 300)
      await assert.rejects(query, { code: '57014' })
      assert.equal((await sql`SELECT 1 AS n`)[0].n, 1)
    }
    said('cancels')
  })

async function manyClients() {
  const processIds = []
  const one = (number) =>
    withClient(async (sql) => {
      for (let round = 0; round < ROUNDS; round++) {
        await sql.begin(async (inside) => {
          const [row] = await inside`SELECT ${number}::int AS n, pg_backend_pid() AS pid`
          assert.equal(row.n, number)
          processIds.push(row.pid)
          const [again] = await inside`SELECT pg_backend_pid() AS pid`
          assert.equal(again.pid, row.pid, 'the server changed inside a transaction')
        })
      }
    })
  await Promise.all(Array.from({ length: CLIENTS }, (_, number) => one(number)))
  assert.equal(processIds.length, CLIENTS * ROUNDS)
  checkServers(processIds)
  said('many clients')
}

main([prepareTables, queries, preparedStatements, transactions, failures, pipelines, copies,
  bigValues, cancels, manyClients])
