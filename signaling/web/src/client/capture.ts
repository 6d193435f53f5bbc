// Getting sound to send: the microphone and a shared tab. Device access only: what becomes of the tracks is the caller's.

export interface MicrophoneChoice {
  /** Empty or left out: the browser's default. */
  deviceId?: string | undefined;
  /** Stereo, without echo cancellation, noise suppression and gain control: for instruments and headphones. */
  music?: boolean | undefined;
}

export class CaptureFailed extends Error {
  readonly code: "denied" | "no_device" | "busy" | "no_sound" | "unsupported";

  constructor(code: CaptureFailed["code"], message: string) {
    super(message);
    this.name = "CaptureFailed";
    this.code = code;
  }
}

export async function openMicrophone(choice: MicrophoneChoice = {}): Promise<MediaStreamTrack> {
  const devices = mediaDevices();
  const music = choice.music ?? false;
  const audio: MediaTrackConstraints = {
    echoCancellation: !music,
    noiseSuppression: !music,
    autoGainControl: !music,
    channelCount: { ideal: music ? 2 : 1 },
  };
  if (choice.deviceId) audio.deviceId = { exact: choice.deviceId };
  try {
    const stream = await devices.getUserMedia({ audio });
    return firstTrack(stream);
  } catch (error) {
    throw explain(error, "microphone");
  }
}

/** Must be called from a click or key. The video that browsers insist on is stopped at once. */
export async function openTabSound(): Promise<MediaStreamTrack> {
  const devices = mediaDevices();
  if (!("getDisplayMedia" in devices)) {
    throw new CaptureFailed("unsupported", "This browser cannot share the sound of a tab. Chromium-based browsers on a computer can.");
  }
  const options = {
    video: true,
    audio: {
      echoCancellation: false,
      noiseSuppression: false,
      autoGainControl: false,
      channelCount: { ideal: 2 },
      suppressLocalAudioPlayback: false,
    },
    // This tab plays the call: sharing it would send everyone their own voice.
    selfBrowserSurface: "exclude",
    systemAudio: "include",
    surfaceSwitching: "include",
  };
  let stream: MediaStream;
  try {
    stream = await devices.getDisplayMedia(options);
  } catch (error) {
    throw explain(error, "tab");
  }
  for (const track of stream.getVideoTracks()) track.stop();
  return firstTrack(stream);
}

export async function listDevices(kind: "audioinput" | "audiooutput"): Promise<MediaDeviceInfo[]> {
  const devices = await navigator.mediaDevices?.enumerateDevices();
  // Before permission is given the entries are blank, and of no use in a list.
  return (devices ?? []).filter((device) => device.kind === kind && device.deviceId !== "" && device.label !== "");
}

/** Every browser can share a picture; those that can share sound know this constraint. */
export function canShareTabSound(): boolean {
  const devices = navigator.mediaDevices;
  return devices !== undefined && "getDisplayMedia" in devices && "suppressLocalAudioPlayback" in devices.getSupportedConstraints();
}

export function canChooseOutput(): boolean {
  return "setSinkId" in HTMLMediaElement.prototype;
}

function mediaDevices(): MediaDevices {
  if (navigator.mediaDevices === undefined) {
    throw new CaptureFailed("unsupported", "Browsers give sound devices to secure pages only: open this page by https or on localhost.");
  }
  return navigator.mediaDevices;
}

function firstTrack(stream: MediaStream): MediaStreamTrack {
  const track = stream.getAudioTracks()[0];
  if (track === undefined) {
    throw new CaptureFailed("no_sound", "No sound came with it. Choose a tab and leave “Also share tab audio” switched on.");
  }
  return track;
}

function explain(error: unknown, what: "microphone" | "tab"): CaptureFailed {
  if (error instanceof CaptureFailed) return error;
  const name = error instanceof DOMException ? error.name : "";
  if (name === "NotAllowedError") {
    const text = what === "microphone" ? "The microphone is blocked. Allow it in the browser's address bar." : "Sharing was cancelled.";
    return new CaptureFailed("denied", text);
  }
  if (name === "NotFoundError" || name === "OverconstrainedError") {
    return new CaptureFailed("no_device", what === "microphone" ? "No such microphone is connected." : "There is nothing to share.");
  }
  return new CaptureFailed("busy", `The ${what} could not be opened. Another program may be using it.`);
}
