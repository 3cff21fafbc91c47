#!/usr/bin/env node
// Calls a handler of node/ as Lambda does: a fleet of containers that start at once, each invoked several times,
// frozen in between with its connection open, and killed in the end without closing it.
//
//   node invoke.js client                     one container, three invocations
//   node invoke.js pool --containers 1000 --processes 20 --freeze
//
// A container is a fresh copy of the handler's modules, so that what a handler keeps outside of itself is its own;
// a process holds many. The handler's settings (DB_HOST, ...) come from the environment. Needs the package pg, by
// `npm install` in node/ or by NODE_PATH. Prints JSON.
'use strict'

const { fork } = require('node:child_process')
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

async function invoke(handler, n) {
  const begun = performance.now()
  try {
    const answer = await handler({ n }, {})
    if (answer.n !== n) throw new Error(`${answer.n} is another container's answer`)
    return { n, ms: performance.now() - begun }
  } catch (error) {
    return { n, error: `${error.code}: ${error.message}` }
  }
}

/** A process with some containers; told by its parent when to invoke them. */
function work(name, first, count) {
  const containers = Array.from({ length: count }, () => startContainer(name))
  process.on('message', async () => {
    process.send(await Promise.all(containers.map((handler, at) => invoke(handler, first + at))))
  })
}

/** A process of containers as its parent sees it. */
class Worker {
  constructor(name, first, count) {
    this.child = fork(__filename, ['--worker', name, String(first), String(count)])
  }

  /** The outcome of one invocation of each of its containers. */
  invoke() {
    return new Promise((resolve, reject) => {
      const ended = (code, signal) => reject(new Error(`a process ended: ${code ?? signal}`))
      this.child.once('exit', ended)
      this.child.once('message', (outcomes) => {
        this.child.off('exit', ended)
        resolve(outcomes)
      })
      this.child.send('invoke')
    })
  }
}

/** The outcomes of each round of invocations. */
async function runFleet(name, { containers, processes, invocations, freeze }) {
  const bounds = Array.from({ length: processes + 1 }, (_, at) => Math.floor((at * containers) / processes))
  const workers = bounds.slice(1).map((end, at) => new Worker(name, bounds[at], end - bounds[at]))
  const signalAll = (signal) => workers.forEach(({ child }) => child.kill(signal))
  const rounds = []
  try {
    for (let round = 0; round < invocations; round++) {
      if (freeze && round > 0) {
        signalAll('SIGSTOP')
        await new Promise((resolve) => { setTimeout(resolve, FROZEN_MS) })
        signalAll('SIGCONT')
      }
      rounds.push((await Promise.all(workers.map((worker) => worker.invoke()))).flat())
    }
  } finally {
    signalAll('SIGKILL')
  }
  return rounds
}

function percentile(sorted, percent) {
  return sorted[Math.min(sorted.length - 1, Math.floor((sorted.length * percent) / 100))]
}

function latencies(round) {
  const sorted = round.filter(({ error }) => !error).map(({ ms }) => ms).sort((a, b) => a - b)
  const rounded = (percent) => (sorted.length ? Math.round(percentile(sorted, percent) * 10) / 10 : null)
  return { p50_ms: rounded(50), p99_ms: rounded(99), most_ms: rounded(100) }
}

function report(rounds, containers) {
  const failures = rounds.flat().filter(({ error }) => error)
  const failed = new Set(failures.map(({ n }) => n)).size
  return {
    containers,
    succeeded: containers - failed,
    failed,
    failed_invocations: failures.length,
    errors: failures.slice(0, 5).map(({ error }) => error).join('; '),
    first: latencies(rounds[0]),
    later: latencies(rounds.slice(1).flat()),
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
    },
  })
  const [name] = positionals
  if (!['client', 'pool'].includes(name)) throw new Error('which handler? client or pool')
  const containers = Number(values.containers)
  const rounds = await runFleet(name, {
    containers,
    processes: Math.min(Number(values.processes), containers),
    invocations: Number(values.invocations),
    freeze: values.freeze,
  })
  console.log(JSON.stringify(report(rounds, containers), null, process.stdout.isTTY ? 2 : 0))
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
