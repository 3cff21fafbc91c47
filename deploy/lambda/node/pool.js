// One connection for the life of the container, opened by its first invocation.
'use strict'

const pg = require('pg')
const { connect } = require('./connection.js')
const { work } = require('./work.js')

/**
 * A connection that was not used for longer is not trusted: while a container is frozen, no timer of it runs and it
 * does not see its connection close. Below pgweir's `idle_client_timeout` of 30 minutes.
 */
const IDLE_MAX_MS = 10 * 60 * 1000

let pool
let lastUsed = 0

function makePool(options) {
  const made = new pg.Pool({ ...options, max: 1, idleTimeoutMillis: 0 })
  // An idle connection that breaks is replaced by the next invocation.
  made.on('error', () => {})
  return made
}

function forgetPool() {
  // Not waited for: the other side may be gone.
  pool?.end().catch(() => {})
  pool = undefined
}

async function checkOut() {
  if (Date.now() - lastUsed > IDLE_MAX_MS) forgetPool()
  // A pool that is there may have to log in again too, and the secret may be another one by then.
  return connect(async (options) => {
    pool ??= makePool(await options())
    try {
      return await pool.connect()
    } catch (error) {
      forgetPool()
      throw error
    }
  })
}

exports.handler = async (event) => {
  const client = await checkOut()
  let failure
  try {
    return await work(client, event)
  } catch (error) {
    failure = error
    throw error
  } finally {
    lastUsed = Date.now()
    // After a failure nobody knows what state it is in: it is closed.
    client.release(failure)
  }
}
