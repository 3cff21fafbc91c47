#!/usr/bin/env node
// Calls a handler of node/ as Lambda does: a fleet of containers that start at once, each invoked several times,
// frozen in between with its connection open, and killed in the end without closing it.
//
//   node invoke.js client                     one container, three invocations
//   node invoke.js pool --containers 1000 --processes 20 --freeze
//   node invoke.js pool --freeze --hold       dies only when its standard input ends
//
// A container is a fresh copy of the handler's modules, so that what a handler keeps outside of itself is its own;
// a process holds many. The handler's settings (DB_HOST, ...) come from the environment. Needs the package pg, by
// `npm install` in node/ or by NODE_PATH. Prints JSON.
'use strict'

const { fork } = require('node:child_process')
const { once } = require('node:events')
const { createRequire } = require('node:module')
const path = require('node:path')
const { performance } = require('node:perf_hooks')
const { parseArgs } = require('node:util')

const HANDLERS = path.join(__dirname, 'node')
/** How long a fleet is frozen between two invocations. */
const FROZEN_MS = 300

/** Loads the handler anew, with all that it keeps. */
function startContainer(name) {
  for (const file of Object.keys(require.cache)) {
    if (path.dirname(file) === HANDLERS) delete require.cache[file]
  }
  return require(path.join(HANDLERS, `${name}.js`)).handler
}

/** Has pg tell how long each login and each query takes that succeeds, in milliseconds. */
function measure() {
  const { prototype } = createRequire(path.join(HANDLERS, 'client.js'))('pg').Client
  const { connect, query } = prototype
  const times = { connect: [], query: [] }
  prototype.connect = function (...args) {
    const begun = performance.now()
    this.once('connect', () => times.connect.push(performance.now() - begun))
    return connect.apply(this, args)
  }
  prototype.query = function (...args) {
    const begun = performance.now()
    const result = query.apply(this, args)
    // A handler that does not wait for its queries is not measured.
    result?.then?.(() => times.query.push(performance.now() - begun), () => {})
    return result
  }
  return times
}

async function invoke(handler, n) {
  try {
    const answer = await handler({ n }, {})
    if (answer.n !== n) throw new Error(`${answer.n} is another container's answer`)
    return { n }
  } catch (error) {
    return { n, error: `${error.code}: ${error.message}` }
  }
}

/** A process with some containers; told by its parent when to invoke them. */
function work(name, first, count) {
  const times = measure()
  const containers = Array.from({ length: count }, () => startContainer(name))
  process.on('message', async () => {
    const outcomes = await Promise.all(containers.map((handler, at) => invoke(handler, first + at)))
    process.send({ outcomes, connect: times.connect.splice(0), query: times.query.splice(0) })
  })
  // Not even its connections keep a process alive whose parent is gone.
  process.on('disconnect', () => process.exit())
  process.send('ready')
}

/** A process of containers as its parent sees it. */
class Worker {
  constructor(name, first, count) {
    this.child = fork(__filename, ['--worker', name, String(first), String(count)])
    this.ready = this.#answer()
  }

  /** The outcome of one invocation of each of its containers, and how long logins and queries took. */
  invoke() {
    const answer = this.#answer()
    this.child.send('invoke')
    return answer
  }

  async #answer() {
    const ending = new AbortController()
    const { signal } = ending
    const ended = once(this.child, 'exit', { signal }).then(([code, by]) => {
      throw new Error(`a process ended: ${code ?? by}`)
    })
    try {
      const [answer] = await Promise.race([once(this.child, 'message', { signal }), ended])
      return answer
    } finally {
      ended.catch(() => {})
      ending.abort()
    }
  }
}

/** Runs a fleet, calls `tell` with the answers of each round of invocations, and ends it once that is done. */
async function runFleet(name, { containers, processes, invocations, freeze }, tell) {
  const bounds = Array.from({ length: processes + 1 }, (_, at) => Math.floor((at * containers) / processes))
  const workers = bounds.slice(1).map((end, at) => new Worker(name, bounds[at], end - bounds[at]))
  const signalAll = (signal) => workers.forEach(({ child }) => child.kill(signal))
  const rounds = []
  try {
    await Promise.all(workers.map(({ ready }) => ready))
    for (let round = 0; round < invocations; round++) {
      if (freeze && round > 0) {
        await new Promise((resolve) => { setTimeout(resolve, FROZEN_MS) })
        signalAll('SIGCONT')
      }
      rounds.push(await Promise.all(workers.map((worker) => worker.invoke())))
      if (freeze) signalAll('SIGSTOP')
    }
    await tell(rounds)
  } finally {
    signalAll('SIGKILL')
  }
}

function percentile(sorted, percent) {
  return sorted[Math.min(sorted.length - 1, Math.floor((sorted.length * percent) / 100))]
}

function latencies(times) {
  const sorted = times.sort((a, b) => a - b)
  const rounded = (percent) => (sorted.length ? Math.round(percentile(sorted, percent) * 10) / 10 : null)
  return { count: sorted.length, p50_ms: rounded(50), p99_ms: rounded(99), most_ms: rounded(100) }
}

/** What went wrong, the most frequent first, and how often. */
function counted(failures) {
  const counts = new Map()
  for (const { error } of failures) counts.set(error, (counts.get(error) ?? 0) + 1)
  return Object.fromEntries([...counts].sort(([, a], [, b]) => b - a))
}

function report(rounds, containers) {
  const answers = rounds.flat()
  const failures = answers.flatMap(({ outcomes }) => outcomes).filter(({ error }) => error)
  const failed = new Set(failures.map(({ n }) => n)).size
  return {
    containers,
    succeeded: containers - failed,
    failed,
    failed_invocations: failures.length,
    errors: counted(failures),
    connect: latencies(answers.flatMap(({ connect }) => connect)),
    query: latencies(answers.flatMap(({ query }) => query)),
  }
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      containers: { type: 'string', default: '1' },
      processes: { type: 'string', default: '1' },
      invocations: { type: 'string', default: '3' },
      freeze: { type: 'boolean', default: false },
      hold: { type: 'boolean', default: false },
    },
  })
  const [name] = positionals
  if (!['client', 'pool'].includes(name)) throw new Error('which handler? client or pool')
  const containers = Number(values.containers)
  const fleet = {
    containers,
    processes: Math.min(Number(values.processes), containers),
    invocations: Number(values.invocations),
    freeze: values.freeze,
  }
  await runFleet(name, fleet, async (rounds) => {
    console.log(JSON.stringify(report(rounds, containers), null, process.stdout.isTTY ? 2 : 0))
    if (values.hold) await once(process.stdin.resume(), 'end')
  })
  // Standard input may be open still.
  process.exit()
}

if (process.argv[2] === '--worker') {
  const [name, first, count] = process.argv.slice(3)
  work(name, Number(first), Number(count))
} else {
  main().catch((error) => {
    console.error(error.message)
    process.exitCode = 2
  })
}
