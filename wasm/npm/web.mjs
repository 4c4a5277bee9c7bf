import { load } from './verifier.mjs';

const response = await fetch(new URL('./verify.wasm', import.meta.url));
load(await WebAssembly.compile(await response.arrayBuffer()));
export { Verifier, VerifyError, SecretError } from './verifier.mjs';
