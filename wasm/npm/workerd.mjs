// Cloudflare Workers compile modules when they are deployed.
import module from './verify.wasm';
import { load } from './verifier.mjs';

load(module);
export { Verifier, VerifyError, SecretError } from './verifier.mjs';
