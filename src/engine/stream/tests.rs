use proptest::prelude::*;

use super::*;

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, 0, 0, 0];
    bytes.extend((payload.len() as u32).to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Feeds the pieces one after the other and joins what comes out of each stream.
fn read(pieces: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>), FramingError> {
    let mut demultiplexer = Demultiplexer::default();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    for piece in pieces {
        demultiplexer.push(piece);
        while let Some(piece) = demultiplexer.piece()? {
            match piece {
                Piece::Output(Chunk::Out(bytes)) => out.extend(bytes),
                Piece::Output(Chunk::Err(bytes)) => err.extend(bytes),
                Piece::Failure(text) => panic!("{text:?}"),
            }
        }
    }
    demultiplexer.finish()?;
    Ok((out, err))
}

#[test]
fn a_payload_that_looks_like_a_frame_is_only_a_payload() {
    let payload = b"\x01\0\0\0\xff\xff\xff\xff and the rest";
    let (out, err) = read(&[&frame(1, payload)]).unwrap();
    assert_eq!(out, payload);
    assert!(err.is_empty());
}

#[test]
fn a_frame_of_four_gigabytes_is_handed_on_in_pieces() {
    let mut demultiplexer = Demultiplexer::default();
    demultiplexer.push(b"\x01\0\0\0\xff\xff\xff\xff");
    assert_eq!(demultiplexer.piece().unwrap(), None);
    for _ in 0..100 {
        demultiplexer.push(&[7; 1000]);
        let piece = demultiplexer.piece().unwrap();
        assert_eq!(piece, Some(Piece::Output(Chunk::Out(Bytes::from_static(&[7; 1000])))));
        assert!(demultiplexer.buffer.is_empty());
    }
    assert_eq!(demultiplexer.finish(), Err(FramingError::Truncated(u32::MAX as usize - 100_000)));
}

#[test]
fn refuses_what_is_not_a_frame() {
    assert_eq!(read(&[b"hello, world"]), Err(FramingError::Head(*b"hell")));
    assert_eq!(read(&[b"\x01\0\x01\0\0\0\0\0"]), Err(FramingError::Head([1, 0, 1, 0])));
    assert_eq!(read(&[b"\x04\0\0\0\0\0\0\0"]), Err(FramingError::Head([4, 0, 0, 0])));
}

#[test]
fn notices_an_end_inside_a_head_or_a_payload() {
    assert_eq!(read(&[b"\x01\0\0"]), Err(FramingError::Truncated(5)));
    assert_eq!(read(&[b"\x01\0\0\0\0\0\0\x05ab"]), Err(FramingError::Truncated(3)));
}

#[test]
fn skips_empty_frames() {
    let bytes = [frame(1, b""), frame(2, b""), frame(1, b"x")].concat();
    assert_eq!(read(&[&bytes]).unwrap(), (b"x".to_vec(), Vec::new()));
}

#[test]
fn a_failure_of_the_engine_is_not_output() {
    let mut demultiplexer = Demultiplexer::default();
    demultiplexer.push(&frame(3, b"log driver broke"));
    assert_eq!(demultiplexer.piece().unwrap(), Some(Piece::Failure(Bytes::from_static(b"log driver broke"))));
}

proptest! {
    #[test]
    fn the_way_bytes_arrive_in_changes_nothing(
        frames in proptest::collection::vec((1_u8..=2, proptest::collection::vec(any::<u8>(), 0..40)), 0..20),
        cut in 1_usize..30,
    ) {
        let bytes: Vec<u8> = frames.iter().flat_map(|(kind, payload)| frame(*kind, payload)).collect();
        let of = |wanted| frames.iter().filter(|(kind, _)| *kind == wanted).flat_map(|(_, bytes)| bytes.clone()).collect::<Vec<u8>>();
        let pieces: Vec<&[u8]> = bytes.chunks(cut).collect();
        prop_assert_eq!(read(&pieces).unwrap(), (of(1), of(2)));
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_never_pile_up(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut demultiplexer = Demultiplexer::default();
        for piece in bytes.chunks(7) {
            demultiplexer.push(piece);
            loop {
                match demultiplexer.piece() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => return Ok(()),
                }
            }
            prop_assert!(demultiplexer.buffer.len() < HEAD);
        }
    }
}
