// Vercel's edge runtime compiles modules when they are deployed.
import module from './verify.wasm?module';
import { load } from './verifier.mjs';

load(module);
export { Verifier, VerifyError, SecretError } from './verifier.mjs';
