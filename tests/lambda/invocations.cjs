// A container that invokes its handler for each line of standard input, a number, and tells of each in a line of JSON.
//
//   TEST_SECRET=secret.json node invocations.cjs pool
//
// Secrets Manager has the secret that the file has at the moment.
'use strict'

const fs = require('node:fs')
const Module = require('node:module')
const path = require('node:path')
const readline = require('node:readline')

const load = Module._load
Module._load = (name, ...rest) => (name === '@aws-sdk/client-secrets-manager' ? sdk : load(name, ...rest))
const sdk = {
  GetSecretValueCommand: class {},
  SecretsManagerClient: class {
    async send() {
      return { SecretString: fs.readFileSync(process.env.TEST_SECRET, 'utf8') }
    }
  },
}

async function main() {
  const { handler } = require(path.join(__dirname, '../../deploy/lambda/node', `${process.argv[2]}.js`))
  for await (const line of readline.createInterface({ input: process.stdin })) {
    // What has come of its connection before is seen first.
    await new Promise(setImmediate)
    const outcome = await handler({ n: Number(line) }, {}).catch(({ code, message }) => ({ error: `${code}: ${message}` }))
    console.log(JSON.stringify(outcome))
  }
  process.exit()
}

main()
