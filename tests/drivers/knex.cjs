// Knex: its schema builder and migrations with their lock, batches, savepoints, streams, a pool.
'use strict'

const assert = require('node:assert/strict')
const knexOf = require('knex')
const { CLIENTS, ROUNDS, server, atOnce } = require('./orm.cjs')
const { said, checkServers, main } = require('./scenario.cjs')

const knex = knexOf({
  client: 'pg',
  connection: server,
  // Sets search_path on each connection.
  searchPath: ['public', 'pg_catalog'],
  pool: {
    min: 0,
    max: 4,
    afterCreate: (connection, done) =>
      connection.query("SET timezone = 'Asia/Tokyo'; SET statement_timeout = '20s'", (error) => done(error, connection)),
  },
})

const steps = {
  first: {
    up: (schema) =>
      schema.schema.createTable('knex_rows', (table) => {
        table.increments('id')
        table.string('owner').unique()
        table.jsonb('body').defaultTo('{}')
        table.timestamps(true, true)
      }),
    down: (schema) => schema.schema.dropTable('knex_rows'),
  },
  second: {
    up: (schema) => schema.schema.alterTable('knex_rows', (table) => table.integer('n').defaultTo(0).index()),
    down: (schema) => schema.schema.alterTable('knex_rows', (table) => table.dropColumn('n')),
  },
}

const migration = {
  tableName: 'knex_migrations_of_the_test',
  migrationSource: {
    getMigrations: async () => Object.keys(steps),
    getMigrationName: (name) => name,
    getMigration: async (name) => steps[name],
  },
}

async function migrations() {
  for (const table of ['knex_rows', migration.tableName, `${migration.tableName}_lock`]) {
    await knex.schema.dropTableIfExists(table)
  }
  assert.deepEqual((await knex.migrate.latest(migration))[1], ['first', 'second'])
  await knex.migrate.rollback(migration, true)
  await knex.migrate.latest(migration)
  assert.ok(await knex.schema.hasColumn('knex_rows', 'n'))
  assert.equal((await knex('knex_rows').columnInfo()).owner.maxLength, 255)
  said('migrations')
}

async function queries() {
  const rows = Array.from({ length: 1500 }, (_, n) => ({ owner: `many ${n}`, n }))
  assert.equal((await knex.batchInsert('knex_rows', rows, 200).returning('id')).length, 1500)
  let seen = 0
  for await (const row of knex('knex_rows').select('n').stream()) seen += row.n >= 0
  assert.equal(seen, 1500)
  await knex('knex_rows').insert({ owner: 'many 1', n: 7 }).onConflict('owner').merge()
  assert.equal((await knex('knex_rows').where({ owner: 'many 1' }).first()).n, 7)
  assert.equal(await knex('knex_rows').where('n', '>', 1400).del(), 99)
  await assert.rejects(knex('knex_rows').insert({ owner: 'many 1' }), { code: '23505' })
  assert.deepEqual((await knex.raw('SHOW search_path')).rows, [{ search_path: 'public, pg_catalog' }])
  said('queries')
}

async function transactions() {
  await assert.rejects(
    knex.transaction(async (trx) => {
      await trx('knex_rows').insert({ owner: 'lost' })
      throw new Error('gives up')
    }),
    /gives up/,
  )
  await knex.transaction(async (trx) => {
    await trx('knex_rows').insert({ owner: 'kept' })
    await assert.rejects(trx.transaction((deeper) => deeper('knex_rows').insert({ owner: 'kept' })), { code: '23505' })
    await trx('knex_rows').where({ owner: 'kept' }).forUpdate()
  })
  const trx = await knex.transaction({ isolationLevel: 'serializable' })
  assert.equal((await trx.raw('SHOW transaction_isolation')).rows[0].transaction_isolation, 'serializable')
  await trx.rollback()
  const owners = await knex('knex_rows').whereIn('owner', ['lost', 'kept']).pluck('owner')
  assert.deepEqual(owners, ['kept'])
  said('transactions')
}

async function manyClients() {
  const processIds = []
  await atOnce(async (number) => {
    for (let round = 0; round < ROUNDS; round++) {
      await knex.transaction(async (trx) => {
        await trx.raw("SELECT set_config('app.tenant', ?, true)", [String(number)])
        await trx('knex_rows').insert({ owner: `client ${number} ${round}` })
        const { rows } = await trx.raw("SELECT current_setting('app.tenant') AS tenant, pg_backend_pid() AS pid")
        assert.equal(rows[0].tenant, String(number))
        processIds.push(rows[0].pid)
      })
      assert.deepEqual((await knex.raw('SHOW timezone')).rows, [{ TimeZone: 'Asia/Tokyo' }])
    }
  })
  checkServers(processIds)
  const [{ count }] = await knex('knex_rows').where('owner', 'like', 'client %').count()
  assert.equal(Number(count), CLIENTS * ROUNDS)
  said('many clients')
}

async function finish() {
  await knex.migrate.rollback(migration, true)
  await knex.destroy()
}

main([migrations, queries, transactions, manyClients, finish])
