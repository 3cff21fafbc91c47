// Prisma with its driver adapter: queries, nested writes, batches, interactive transactions, raw SQL, a pool.
//
// Its migrations need an engine that is downloaded from elsewhere, so that the tables are made by hand.
'use strict'

const assert = require('node:assert/strict')
const { execFileSync } = require('node:child_process')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')
const { PrismaPg } = require('@prisma/adapter-pg')
const { CLIENTS, ROUNDS, server, atOnce } = require('./orm.cjs')
const { said, checkServers, main } = require('./scenario.cjs')

/** Makes the client of the schema beside this file, and loads it. */
function generated() {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'pgweir-prisma-'))
  process.on('exit', () => fs.rmSync(directory, { recursive: true }))
  // The generator looks for its packages from where the schema is.
  fs.copyFileSync(path.join(__dirname, 'schema.prisma'), path.join(directory, 'schema.prisma'))
  fs.symlinkSync(process.env.NODE_PATH, path.join(directory, 'node_modules'))
  const program = require.resolve('prisma/build/index.js')
  execFileSync(process.execPath, [program, 'generate', '--no-hints', '--schema', 'schema.prisma'], {
    cwd: directory,
    env: {
      ...process.env,
      // Not needed to generate; without this it is looked for, and downloaded.
      PRISMA_SCHEMA_ENGINE_BINARY: process.execPath,
      PRISMA_GENERATE_SKIP_AUTOINSTALL: '1',
      PRISMA_HIDE_UPDATE_MESSAGE: '1',
      CHECKPOINT_DISABLE: '1',
    },
  })
  return require(path.join(directory, 'client'))
}

const { PrismaClient } = generated()
const prisma = new PrismaClient({ adapter: new PrismaPg({ ...server, max: 4 }) })

async function tables() {
  await prisma.$executeRawUnsafe('DROP TABLE IF EXISTS prisma_books, prisma_authors')
  await prisma.$executeRawUnsafe('CREATE TABLE prisma_authors (id serial PRIMARY KEY, name text UNIQUE NOT NULL)')
  await prisma.$executeRawUnsafe(`CREATE TABLE prisma_books
    (id serial PRIMARY KEY, title text NOT NULL, author_id int NOT NULL REFERENCES prisma_authors)`)
  said('tables')
}

async function queries() {
  const books = Array.from({ length: 40 }, (_, n) => ({ title: `A${n}` }))
  const ann = await prisma.author.create({ data: { name: 'Ann', books: { create: books } }, include: { books: true } })
  assert.equal(ann.books.length, 40)
  const many = Array.from({ length: 1000 }, (_, n) => ({ title: `B${n}`, authorId: ann.id }))
  assert.equal((await prisma.book.createMany({ data: many })).count, 1000)
  await prisma.author.upsert({ where: { name: 'Ann' }, update: { name: 'Anna' }, create: { name: 'Ann' } })
  const page = await prisma.book.findMany({ where: { title: { startsWith: 'B' } }, orderBy: { id: 'asc' }, skip: 10, take: 5 })
  assert.deepEqual(page.map((book) => book.title), ['B10', 'B11', 'B12', 'B13', 'B14'])
  const found = await prisma.author.findUnique({ where: { name: 'Anna' }, include: { _count: { select: { books: true } } } })
  assert.equal(found._count.books, 1040)
  await assert.rejects(prisma.author.create({ data: { name: 'Anna' } }), { code: 'P2002' })
  const [row] = await prisma.$queryRaw`SELECT ${41}::int + 1 AS n`
  assert.equal(row.n, 42)
  said('queries')
}

async function transactions() {
  const batch = [prisma.author.create({ data: { name: 'lost' } }), prisma.author.create({ data: { name: 'Anna' } })]
  await assert.rejects(prisma.$transaction(batch), { code: 'P2002' })
  const interactive = prisma.$transaction(
    async (tx) => {
      await tx.author.create({ data: { name: 'lost too' } })
      throw new Error('gives up')
    },
    { isolationLevel: 'Serializable' },
  )
  await assert.rejects(interactive, /gives up/)
  await prisma.$transaction([prisma.author.create({ data: { name: 'kept' } }), prisma.book.deleteMany()])
  const names = (await prisma.author.findMany({ orderBy: { name: 'asc' } })).map((author) => author.name)
  assert.deepEqual(names, ['Anna', 'kept'])
  said('transactions')
}

async function manyClients() {
  const processIds = []
  await atOnce(async (number) => {
    for (let round = 0; round < ROUNDS; round++) {
      await prisma.$transaction(
        async (tx) => {
          await tx.$executeRaw`SELECT set_config('app.tenant', ${String(number)}, true)`
          await tx.author.create({ data: { name: `client ${number} ${round}` } })
          const [row] = await tx.$queryRaw`SELECT current_setting('app.tenant') AS tenant, pg_backend_pid() AS pid`
          assert.equal(row.tenant, String(number))
          processIds.push(row.pid)
        },
        { maxWait: 20_000, timeout: 20_000 },
      )
    }
  })
  checkServers(processIds)
  assert.equal(await prisma.author.count({ where: { name: { startsWith: 'client ' } } }), CLIENTS * ROUNDS)
  said('many clients')
}

async function finish() {
  await prisma.$executeRawUnsafe('DROP TABLE prisma_books, prisma_authors')
  await prisma.$disconnect()
}

main([tables, queries, transactions, manyClients, finish])
