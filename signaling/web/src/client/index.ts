// The client library: everything a page needs, and nothing that renders.

export { canChooseOutput, canShareTabSound, CaptureFailed, listDevices, openMicrophone, openTabSound } from "./capture.ts";
export type { MicrophoneChoice } from "./capture.ts";
export { CarillonClient } from "./client.ts";
export { MeterBallistics, meterPosition, SPEAKING_DB, toDecibel } from "./levels.ts";
export { canLowDelay } from "./low-delay/low-delay.ts";
export type { LowDelayScripts, LowDelayTrack } from "./low-delay/low-delay.ts";
export { levelKey } from "./monitor.ts";
export type { Level } from "./monitor.ts";
export type { ClientEvents, ClientOptions } from "./options.ts";
export { PROTOCOL_VERSION, SUBPROTOCOL } from "./protocol.ts";
export type { Limits, Member, ProtocolError, Role, Slot, Track, TrackKind } from "./protocol.ts";
export type { CallState, EndReason } from "./session.ts";
export { readTokenClaims, sendableKinds } from "./token.ts";
export type { TokenClaims } from "./token.ts";
