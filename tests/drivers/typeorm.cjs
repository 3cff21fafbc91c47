// TypeORM: synchronisation of the schema, migrations, the ORM, transactions, streams, a pool.
'use strict'

const assert = require('node:assert/strict')
const { DataSource, EntitySchema, Table } = require('typeorm')
const { CLIENTS, ROUNDS, server, atOnce } = require('./orm.cjs')
const { said, checkServers, main } = require('./scenario.cjs')

const Author = new EntitySchema({
  name: 'Author',
  tableName: 'typeorm_authors',
  columns: {
    id: { type: Number, primary: true, generated: true },
    name: { type: String, unique: true },
    version: { type: Number, version: true },
  },
  relations: { books: { type: 'one-to-many', target: 'Book', inverseSide: 'author', cascade: true } },
})

const Book = new EntitySchema({
  name: 'Book',
  tableName: 'typeorm_books',
  columns: {
    id: { type: 'uuid', primary: true, generated: 'uuid' },
    title: { type: String },
    at: { type: 'timestamptz', createDate: true },
  },
  relations: { author: { type: 'many-to-one', target: 'Author', inverseSide: 'books', onDelete: 'CASCADE' } },
})

class AddNote1700000000000 {
  async up(runner) {
    await runner.query('ALTER TABLE typeorm_books ADD note text')
    await runner.createTable(new Table({ name: 'typeorm_notes', columns: [{ name: 'id', type: 'int', isPrimary: true }] }))
  }

  async down(runner) {
    await runner.dropTable('typeorm_notes')
    await runner.query('ALTER TABLE typeorm_books DROP note')
  }
}

const { user: username, ...rest } = server
const source = new DataSource({
  type: 'postgres',
  ...rest,
  username,
  entities: [Author, Book],
  migrations: [AddNote1700000000000],
  migrationsTableName: 'typeorm_migrations',
  uuidExtension: 'pgcrypto',
  installExtensions: false,
  applicationName: 'typeorm',
  poolSize: 4,
})

async function migrations() {
  await source.initialize()
  await source.query('DROP TABLE IF EXISTS typeorm_books, typeorm_authors, typeorm_migrations, typeorm_notes')
  await source.synchronize()
  await source.synchronize()
  assert.equal((await source.runMigrations()).length, 1)
  await source.undoLastMigration()
  said('migrations')
}

async function orm() {
  const authors = source.getRepository('Author')
  const books = Array.from({ length: 40 }, (_, n) => ({ title: `A${n}` }))
  const ann = await authors.save({ name: 'Ann', books })
  assert.equal(ann.version, 1)
  ann.name = 'Anna'
  assert.equal((await authors.save(ann)).version, 2)
  await source.getRepository('Book').insert(Array.from({ length: 1000 }, (_, n) => ({ title: `B${n}`, author: ann })))
  const found = await authors.findOne({ where: { name: 'Anna' }, relations: { books: true } })
  assert.equal(found.books.length, 1040)
  await authors.upsert([{ name: 'Anna' }, { name: 'Ben' }], ['name'])
  assert.equal(await authors.count(), 2)
  const query = source.getRepository('Book').createQueryBuilder('book')
  const counted = await query.where('book.title LIKE :like', { like: 'B%' }).take(5).getManyAndCount()
  assert.deepEqual([counted[0].length, counted[1]], [5, 1000])
  await assert.rejects(authors.insert({ name: 'Ben' }), { code: '23505' })
  said('orm')
}

async function transactions() {
  const lost = source.transaction('SERIALIZABLE', async (manager) => {
    await manager.insert('Author', { name: 'lost' })
    throw new Error('gives up')
  })
  await assert.rejects(lost, /gives up/)
  await source.transaction(async (manager) => {
    await manager.insert('Author', { name: 'kept' })
    // A savepoint.
    const inner = manager.transaction((deeper) => deeper.insert('Author', { name: 'kept' }))
    await assert.rejects(inner, { code: '23505' })
    const [locked] = await manager.find('Author', { where: { name: 'kept' }, lock: { mode: 'pessimistic_write' } })
    assert.equal(locked.name, 'kept')
  })
  const names = (await source.getRepository('Author').find({ order: { name: 'ASC' } })).map((row) => row.name)
  assert.deepEqual(names, ['Anna', 'Ben', 'kept'])
  said('transactions')
}

async function manyClients() {
  const processIds = []
  await atOnce(async (number) => {
    for (let round = 0; round < ROUNDS; round++) {
      await source.transaction(async (manager) => {
        await manager.query("SELECT set_config('app.tenant', $1, true)", [String(number)])
        await manager.insert('Author', { name: `client ${number} ${round}` })
        const [row] = await manager.query("SELECT current_setting('app.tenant') AS tenant, pg_backend_pid() AS pid")
        assert.equal(row.tenant, String(number))
        processIds.push(row.pid)
      })
    }
  })
  checkServers(processIds)
  const count = await source.getRepository('Author').createQueryBuilder('a').where("a.name LIKE 'client %'").getCount()
  assert.equal(count, CLIENTS * ROUNDS)
  said('many clients')
}

async function finish() {
  await source.query('DROP TABLE typeorm_books, typeorm_authors, typeorm_migrations')
  await source.destroy()
}

main([migrations, orm, transactions, manyClients, finish])
