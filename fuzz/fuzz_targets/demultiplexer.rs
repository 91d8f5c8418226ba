//! The engine's framing of output and error. The first byte says where the rest is cut, which must change nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox::engine::stream::{Chunk, Demultiplexer, Piece};

/// All of output, all of errors, all of the engine's own text, and how it ended.
fn read(pieces: &[&[u8]]) -> ([Vec<u8>; 3], Option<String>) {
    let mut streams = <[Vec<u8>; 3]>::default();
    let mut demultiplexer = Demultiplexer::default();
    for piece in pieces {
        demultiplexer.push(piece);
        loop {
            match demultiplexer.piece() {
                Ok(Some(Piece::Output(Chunk::Out(bytes)))) => streams[0].extend_from_slice(&bytes),
                Ok(Some(Piece::Output(Chunk::Err(bytes)))) => streams[1].extend_from_slice(&bytes),
                Ok(Some(Piece::Failure(bytes))) => streams[2].extend_from_slice(&bytes),
                Ok(None) => break,
                Err(error) => return (streams, Some(error.to_string())),
            }
        }
    }
    (streams, demultiplexer.finish().err().map(|error| error.to_string()))
}

fuzz_target!(|input: &[u8]| {
    let Some((&cut, bytes)) = input.split_first() else { return };
    let whole = read(&[bytes]);
    let (head, tail) = bytes.split_at(usize::from(cut).min(bytes.len()));
    assert_eq!(whole, read(&[head, tail]));
    assert!(whole.0.iter().map(Vec::len).sum::<usize>() <= bytes.len());
});
