/** The body of a request: the bytes as they came, or their text if that was UTF-8. */
export type Body = string | ArrayBufferView | ArrayBufferLike;

/**
 * All headers of a request: a `Headers`, Node's `request.headers`, `headersDistinct` or `rawHeaders`, an
 * iterable of pairs, or an object. The case of names does not matter.
 */
export type HeadersInput =
  | Iterable<readonly [string, string]>
  | readonly string[]
  | { readonly [name: string]: string | readonly string[] | undefined };

/** The result of a successful verification. */
export interface Verified<B> {
  /** The message id: the same on every retry, so use it as the idempotency key. */
  readonly id: string;
  /** When this attempt was signed, in Unix seconds. */
  readonly timestamp: number;
  /** The index of the secret that matched. If 0 is the newest one, the others are no longer needed. */
  readonly secretIndex: number;
  /** The body that was verified; `undefined` after `finish`. */
  readonly body: B;
}

/** Verifies deliveries against up to four secrets. It can be shared. */
export class Verifier {
  /**
   * @param secrets `whsec_…`; during a rotation the new one and the old one, in this order
   * @param options.tolerance how many seconds a timestamp may differ from now; 300 unless given
   * @throws {SecretError} a secret is malformed, or `secrets` is undefined
   * @throws {RangeError} no secret, or more than four
   * @throws {TypeError} a secret is not a string, or the tolerance is not a whole number of seconds
   */
  constructor(secrets: string | Iterable<string>, options?: { tolerance?: number });
  /**
   * Verifies a delivery whose body is complete.
   *
   * @param now Unix seconds; by the system clock unless given
   * @throws {VerifyError} the first check that failed
   * @throws {TypeError} the headers, the body or the time have a wrong type
   * @throws {RangeError} the signature headers are longer than 1 MiB
   */
  verify<B extends Body>(headers: HeadersInput, body: B, now?: number): Verified<B>;
  /**
   * Checks the headers of a delivery whose body is about to arrive.
   *
   * @param now Unix seconds; by the system clock unless given
   * @throws {VerifyError} the first check that failed
   * @throws {TypeError} the headers or the time have a wrong type
   * @throws {RangeError} the signature headers are longer than 1 MiB
   */
  begin(headers: HeadersInput, now?: number): Verification;
  /** Overwrites the keys. Later calls throw. */
  dispose(): void;
}

/** A delivery whose headers are valid and whose body arrives. Do not trust the body before `finish`. */
export interface Verification {
  /** The id in the header. It is not authentic before `finish`. */
  readonly claimedId: string;
  /** Takes the next chunk of the body. */
  update(chunk: Body): this;
  /**
   * Verifies the signature after the last chunk.
   *
   * @throws {VerifyError} `signature_mismatch`
   */
  finish(): Verified<undefined>;
  /** Overwrites the state, if the body will never be complete. */
  dispose(): void;
}

/** The error of a rejected delivery. `code` names the first check that failed. */
export class VerifyError extends Error {
  readonly code:
    | 'duplicate_header'
    | 'missing_header'
    | 'invalid_id'
    | 'invalid_timestamp'
    | 'timestamp_too_old'
    | 'timestamp_too_new'
    | 'no_supported_signature'
    | 'signature_mismatch';
  /** The header that is missing or duplicated. */
  readonly header?: 'id' | 'timestamp' | 'signature';
  /** How many seconds the timestamp differs from now, if that is too much. */
  readonly skew?: number;
  /** How many seconds it may differ, if it does too much. */
  readonly tolerance?: number;
  /** If no signature is supported: whether one is `v1a` (Ed25519). */
  readonly v1a?: boolean;
  private constructor();
}

/** The error of a malformed secret. The message says how to fix it, and shows no part of the secret. */
export class SecretError extends Error {
  readonly code:
    | 'empty'
    | 'whitespace'
    | 'quotes'
    | 'version'
    | 'private_key'
    | 'public_key'
    | 'missing_prefix'
    | 'too_long'
    | 'url_safe'
    | 'unpadded'
    | 'invalid_base64'
    | 'too_short';
  /** The index of the malformed secret among those given. */
  readonly index: number;
  private constructor();
}
