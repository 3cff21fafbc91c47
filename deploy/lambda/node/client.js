// A connection for each invocation: the simplest style, and the one that a database takes worst.
'use strict'

const pg = require('pg')
const { connect } = require('./connection.js')
const { work } = require('./work.js')

exports.handler = async (event) => {
  const client = await connect(async (options) => {
    const client = new pg.Client(await options())
    // A connection that breaks later emits this too; without a listener the process would end.
    client.on('error', () => {})
    await client.connect()
    return client
  })
  try {
    return await work(client, event)
  } finally {
    await client.end()
  }
}
