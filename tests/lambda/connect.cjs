// One connection as the handlers for Lambda make it, by the settings in the environment.
'use strict'

const path = require('node:path')
const pg = require('pg')
const { connect } = require(path.join(__dirname, '../../deploy/lambda/node/connection.js'))

async function main() {
  const client = await connect(async (options) => {
    const client = new pg.Client(await options())
    await client.connect()
    return client
  })
  await client.query('SELECT 1')
  await client.end()
  console.log('connected')
}

main()
