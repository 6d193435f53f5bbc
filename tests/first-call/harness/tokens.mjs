// JSON web tokens made by hand, so that wrong ones can be made too.
import { createHmac } from 'node:crypto';

const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

/// `key` is `{ id, secret }`; undefined claims are left out.
export function mint(key, claims, { algorithm = 'HS256', header = {} } = {}) {
  const body = `${encode({ alg: algorithm, typ: 'JWT', kid: key.id, ...header })}.${encode(claims)}`;
  const hash = { HS256: 'sha256', HS384: 'sha384', HS512: 'sha512' }[algorithm];
  const signature = hash ? createHmac(hash, key.secret).update(body).digest('base64url') : '';
  return `${body}.${signature}`;
}

export function claims(room, identity, role = 'speaker', seconds = 3600) {
  const now = Math.floor(Date.now() / 1000);
  return { room, sub: identity, name: identity, role, iat: now, exp: now + seconds };
}
