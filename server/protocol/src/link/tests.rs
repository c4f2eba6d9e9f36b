use super::*;
use proptest::prelude::*;

#[test]
fn a_hello_reads_back_and_a_stranger_is_known() {
    let hello = Hello { purpose: Purpose::Serve, worker: 3, thread: 1, slot: 7, token: *b"0123456789abcdef" };
    let mut bytes = hello.encode();
    assert_eq!(Hello::decode(&bytes), Ok(hello));
    bytes[0] = b'G';
    assert_eq!(Hello::decode(&bytes), Err(LinkError::Magic));
}

#[test]
fn the_lengths_of_a_request_read_back() {
    for on_lane in [false, true] {
        let head = RequestLengths { head: 70_000, peer: 40, body: 1 << 40, since: u64::MAX, gathered: 7, on_lane };
        assert_eq!(RequestLengths::decode(&head.encode()), head);
    }
}

#[test]
fn a_peer_is_four_words_and_six_with_tls() {
    assert_eq!(
        Peer::parse("::1 50000 127.0.0.1 80"),
        Ok(Peer { remote_addr: "::1", remote_port: "50000", server_addr: "127.0.0.1", server_port: "80", tls: None })
    );
    assert!(Peer::parse("   ").is_ok_and(|peer| peer.remote_addr.is_empty() && peer.server_port.is_empty()));
    for text in ["", "a b c", "a b c d e", "a b c d e f", "a b c d tls", "a b c d tls e f"] {
        assert_eq!(Peer::parse(text), Err(LinkError::Peer));
    }
}

#[test]
fn what_a_client_said_of_itself_in_tls_reads_back() {
    for (certificate, is_exported) in [("", false), ("", true), ("TUlJ", false), ("TUlJ", true)] {
        let tls = PeerTls { certificate, is_exported };
        let text = Peer::text(None, "web 443") + &tls.text();
        assert_eq!(Peer::parse(&text).unwrap().tls, Some(tls));
    }
}

#[test]
fn a_client_of_ipv4_has_one_address_whatever_socket_it_came_by() {
    for ip in ["192.0.2.1", "::ffff:192.0.2.1"] {
        let text = Peer::text(Some((ip.parse().unwrap(), 5)), "web 80");
        assert_eq!(Peer::parse(&text).unwrap().remote_addr, "192.0.2.1");
    }
    assert_eq!(Peer::text(Some(("2001:db8::1".parse().unwrap(), 5)), "::1 80"), "2001:db8::1 5 ::1 80");
    assert_eq!(Peer::text(None, " "), "   ");
}

#[test]
fn a_length_that_no_frame_has_is_refused() {
    assert_eq!(Frames::default().decode(&[1, 0xff, 0xff, 0xff]), Err(LinkError::Length(0xffff_ff01)));
}

#[test]
fn what_is_on_the_lane_reads_back() {
    for (slot, len) in [(0, 1), (31, 0), (11, 1 << 18)] {
        let word = in_slot(slot, len).to_le_bytes();
        let there = Frame::InSlot { slot: slot as usize, len: len as usize };
        assert_eq!(Frames::default().decode(&word), Ok((4, there)));
    }
    assert_eq!(Frames::default().decode(&FILE.to_le_bytes()), Ok((4, Frame::File)));
    assert_eq!(Frames::default().decode(&MAX_FRAME.to_le_bytes()), Ok((4, Frame::More)));
}

proptest! {
    #[test]
    fn any_split_of_a_response_gives_the_same_bytes_and_end(
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..6),
        keep in any::<bool>(),
        fast in any::<bool>(),
        after in prop::option::of(prop::sample::select(vec![LEAVING, SKIPPED, ABORTED])),
        cuts in prop::collection::vec(1usize..30, 1..6),
    ) {
        let mut input = Vec::new();
        for frame in &frames {
            input.extend_from_slice(&(frame.len() as u32).to_le_bytes());
            input.extend_from_slice(frame);
        }
        let done = if keep { DONE_KEEP } else { DONE_CLOSE } + if fast { FAST } else { 0 };
        input.extend_from_slice(&done.to_le_bytes());
        if let Some(word) = after {
            input.extend_from_slice(&word.to_le_bytes());
        }
        let (mut data, mut words, mut decoder, mut at) = (Vec::new(), Vec::new(), Frames::default(), 0);
        let mut cuts = cuts.iter().cycle();
        while at < input.len() {
            let end = input.len().min(at + cuts.next().unwrap());
            while at < end {
                let (consumed, frame) = decoder.decode(&input[at..end])?;
                at += consumed;
                match frame {
                    Frame::Data(bytes) => data.extend_from_slice(bytes),
                    Frame::More => prop_assert_eq!(at, end),
                    word => words.push(word),
                }
            }
        }
        prop_assert_eq!(data, frames.concat());
        let mut expected = vec![Frame::Done { keep, fast }];
        expected.extend(after.map(|word| match word {
            LEAVING => Frame::Leaving,
            SKIPPED => Frame::Skipped,
            _ => Frame::Aborted,
        }));
        prop_assert_eq!(words, expected);
    }
}
