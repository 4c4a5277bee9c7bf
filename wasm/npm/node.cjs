'use strict';
const { readFileSync } = require('node:fs');
const { join } = require('node:path');
const { load, Verifier, VerifyError, SecretError } = require('./verifier.cjs');

load(new WebAssembly.Module(readFileSync(join(__dirname, 'verify.wasm'))));
module.exports = { Verifier, VerifyError, SecretError };
