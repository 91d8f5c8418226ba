//! Frames between the launcher and the helper: the agent's container writes them. The first byte says where the rest is
//! cut in two, which must change nothing.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use sandbox::init::frame::{Frame, FrameCodec, Reply, Request};
use tokio_util::codec::{Decoder as _, Encoder as _};

fn decode(pieces: [&[u8]; 2]) -> (Vec<Frame>, Option<String>) {
    let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match FrameCodec.decode(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error.to_string())),
            }
        }
    }
    (frames, None)
}

fuzz_target!(|input: &[u8]| {
    let Some((&cut, bytes)) = input.split_first() else { return };
    let (frames, error) = decode([bytes, b""]);
    let (head, tail) = bytes.split_at(usize::from(cut).min(bytes.len()));
    assert_eq!((&frames, &error), (&decode([head, tail]).0, &decode([head, tail]).1));

    let mut again = BytesMut::new();
    for frame in frames {
        if let Frame::Control(json) = &frame {
            let _ = serde_json::from_slice::<Request>(json);
            let _ = serde_json::from_slice::<Reply>(json);
        }
        FrameCodec.encode(frame, &mut again).expect("what was decoded can be encoded");
    }
    assert!(bytes.starts_with(&again), "a frame is not encoded as it was");
});
