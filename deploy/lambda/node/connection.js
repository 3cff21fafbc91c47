// How a handler reaches its database: all from the environment, as a Lambda function is configured.
//
//   DB_HOST, DB_PORT, DB_NAME, DB_USER   where, and as whom; with DB_SECRET the user may be left to the secret
//   DB_PASSWORD                          the password itself,
//   DB_SECRET                            or the ARN of the secret that holds it,
//   DB_IAM=true                          or a token signed with the function's role
//   DB_IAM_HOST, DB_IAM_PORT             what the token is signed for, if not DB_HOST: behind pgweir, the database
//   DB_SSL_CA                            authorities, as PEM or as the name of a file; without it, DB_SSL says whether
//   DB_SSL=true                          TLS is used with the authorities that Node.js knows
'use strict'

const fs = require('node:fs')

const { env } = process

/** SQLSTATE of a refused password. */
const WRONG_PASSWORD = '28P01'

function required(name) {
  if (!env[name]) throw new Error(`the environment variable ${name} is not set`)
  return env[name]
}

/** Options for tls.connect, or false. The certificate and its name are verified. */
function tls() {
  if (!env.DB_SSL_CA) return env.DB_SSL === 'true'
  const isText = env.DB_SSL_CA.includes('-----BEGIN')
  return { ca: isText ? env.DB_SSL_CA : fs.readFileSync(env.DB_SSL_CA, 'utf8') }
}

/** What the secret says, read once and kept until a login fails. */
let secret

async function readSecret() {
  if (!secret) {
    const { SecretsManagerClient, GetSecretValueCommand } = require('@aws-sdk/client-secrets-manager')
    const answer = await new SecretsManagerClient().send(new GetSecretValueCommand({ SecretId: env.DB_SECRET }))
    secret = JSON.parse(answer.SecretString)
  }
  return secret
}

/** A token is good for 15 minutes, and only for logging in: one is made for each new connection. */
function token(user) {
  const { Signer } = require('@aws-sdk/rds-signer')
  const hostname = env.DB_IAM_HOST || required('DB_HOST')
  const port = Number(env.DB_IAM_PORT || env.DB_PORT || 5432)
  return new Signer({ hostname, port, username: user }).getAuthToken()
}

/** Options for pg's Client and Pool. */
async function options() {
  const user = env.DB_USER || (env.DB_SECRET ? (await readSecret()).username : required('DB_USER'))
  const password = async () => {
    if (env.DB_IAM === 'true') return token(user)
    if (env.DB_SECRET) return (await readSecret()).password
    return required('DB_PASSWORD')
  }
  return {
    host: required('DB_HOST'),
    port: Number(env.DB_PORT || 5432),
    database: required('DB_NAME'),
    user,
    password,
    ssl: tls(),
    // Shorter than the function's own timeout, so that the log says what it waited for.
    connectionTimeoutMillis: Number(env.DB_CONNECT_TIMEOUT_MS || 20_000),
  }
}

/** What `open` yields, which is given what yields the options; once more with the secret of now when that was rotated. */
async function connect(open) {
  try {
    return await open(options)
  } catch (error) {
    if (error.code !== WRONG_PASSWORD || !secret) throw error
    secret = undefined
    return open(options)
  }
}

module.exports = { connect }
