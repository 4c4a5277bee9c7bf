// The same classes as `require` returns, so that `instanceof` holds for both.
import api from './node.cjs';

export const { Verifier, VerifyError, SecretError } = api;
