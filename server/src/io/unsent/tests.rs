use super::*;
use std::io::Read;
use std::os::unix::net::UnixStream;

fn pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_nonblocking(true).unwrap();
    (ours, theirs)
}

#[test]
fn bytes_stay_in_order_between_memory_and_file() {
    let (ours, mut theirs) = pair();
    let temp = TempFiles::of_test(None);
    let mut unsent = Unsent::default();
    let (mut expected, mut received) = (Vec::new(), Vec::new());
    let mut spilled = false;
    let mut buf = vec![0; 100_000];
    for round in 0..200usize {
        // Faster than it is read at first, slower later: through memory to the file, and back.
        let piece: Vec<u8> = (0..if round < 100 { 50_000 } else { 100 }).map(|at| (at * 7 + round) as u8).collect();
        let (one, two) = piece.split_at(piece.len() / 3);
        unsent.send_or_spill(&ours, &[one, two], &temp).unwrap();
        expected.extend_from_slice(&piece);
        spilled |= unsent.spills();
        if let Ok(count) = theirs.read(&mut buf[..if round < 100 { 20_000 } else { 100_000 }]) {
            received.extend_from_slice(&buf[..count]);
        }
        unsent.send_some(&ours).unwrap();
    }
    assert!(spilled);
    while received.len() < expected.len() {
        let sent = unsent.send_some(&ours).unwrap();
        assert!(!sent.more, "the socket is smaller than a turn");
        let count = theirs.read(&mut buf).unwrap();
        received.extend_from_slice(&buf[..count]);
    }
    assert!(received == expected);
    assert!(unsent.is_empty() && !unsent.is_full(&temp) && unsent.pieces.capacity() == 0);
    assert_eq!(temp.taken(), 0);
}

#[test]
fn a_large_part_is_kept_through_its_owner_and_a_file_follows_it() {
    let (ours, mut theirs) = pair();
    let mut unsent = Unsent::default();
    let part: Vec<u8> = (0..1_000_000).map(|at| at as u8).collect();
    let mut owned = 0;
    let mut file = tempfile::tempfile().unwrap();
    io::Write::write_all(&mut file, b"a file's end").unwrap();
    let all_sent = unsent.send(&ours, &[b"head", &part], &mut |index| {
        owned = index;
        Some(Box::new(part.clone()))
    });
    assert!(!all_sent.unwrap() && owned == 1);
    assert!(!unsent.send_file(&ours, file.try_clone().unwrap(), 2, 10).unwrap());
    let (mut received, mut buf) = (Vec::new(), vec![0; 100_000]);
    while received.len() < 4 + part.len() + 10 {
        unsent.advance(&ours).unwrap();
        let count = theirs.read(&mut buf).unwrap();
        received.extend_from_slice(&buf[..count]);
    }
    assert!(received == [b"head", part.as_slice(), b"file's end"].concat());
    assert_eq!(unsent.take_sent(), received.len() as u64);
    // Shorter than was said.
    let sent = unsent.send_file(&ours, file, 2, 11).and_then(|_| unsent.advance(&ours));
    assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn a_worker_waits_for_a_client_whose_file_is_full_or_could_not_be_had() {
    let temp = TempFiles::of_test(None);
    let mut unsent = Unsent::default();
    unsent.copy(&vec![0; 2 * temp.memory_for_one() - 1]);
    assert!(!unsent.is_full(&temp));
    unsent.copy(&[0]);
    assert!(unsent.is_full(&temp));
}

#[test]
fn a_worker_waits_where_files_have_no_space_and_no_byte_is_lost() {
    let (ours, mut theirs) = pair();
    let temp = TempFiles::of_test(Some(3 << 20));
    let mut unsent = Unsent::default();
    let piece: Vec<u8> = (0..200_000u32).map(|at| at as u8).collect();
    let (mut expected, mut received) = (Vec::new(), Vec::new());
    let mut buf = vec![0; 200_000];
    let mut times_full = 0;
    while times_full < 3 {
        while !unsent.is_full(&temp) {
            unsent.send_or_spill(&ours, &[&piece], &temp).unwrap();
            expected.extend_from_slice(&piece);
            assert!(temp.taken() <= 3 << 20);
        }
        // Memory, a file, and what came when that had no more space.
        assert!(expected.len() - received.len() > 3 << 20 && expected.len() - received.len() < 6 << 20);
        times_full += 1;
        while unsent.is_full(&temp) {
            let count = theirs.read(&mut buf).unwrap();
            received.extend_from_slice(&buf[..count]);
            unsent.send_some(&ours).unwrap();
        }
    }
    while received.len() < expected.len() {
        unsent.send_some(&ours).unwrap();
        let count = theirs.read(&mut buf).unwrap();
        received.extend_from_slice(&buf[..count]);
    }
    assert!(received == expected);
    assert_eq!(temp.taken(), 0);
}

#[test]
fn a_client_that_takes_too_little_is_too_slow_and_others_are_waited_for() {
    let configured = rwsgi_config::MinRates {
        response: rwsgi_config::MinRate::Everywhere(std::num::NonZeroU32::new(1 << 20).unwrap()),
        grace: 1,
        ..Default::default()
    };
    let rates = MinRates::new(&configured, false);
    for (rates, drips, is_slow) in [(rates, 60, true), (MinRates::NONE, 5, false)] {
        let (ours, mut theirs) = pair();
        let mut unsent = Unsent::default();
        unsent.copy(&vec![0; 4 << 20]);
        let reader = std::thread::spawn(move || {
            let mut buf = vec![0; 100_000];
            // Slow at first, and so long that it is noticed.
            for _ in 0..drips {
                let _ = theirs.read(&mut buf[..2_000]);
                std::thread::sleep(Duration::from_millis(100));
            }
            theirs.set_nonblocking(false).unwrap();
            while theirs.read(&mut buf).is_ok_and(|count| count > 0) {}
        });
        let flushed = unsent.flush(&ours, Duration::from_secs(60), rates);
        drop(ours);
        reader.join().unwrap();
        assert_eq!(flushed.is_err_and(|failure| TooSlow::is_why(&failure)), is_slow);
    }
}

#[test]
fn what_the_router_gave_the_kernel_at_once_is_taken_when_the_client_has_it() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut theirs = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut unsent = Unsent::default();
    unsent.send_or_spill(&ours, &[&vec![0; 16 << 20]], &TempFiles::of_test(None)).unwrap();
    assert!(!unsent.is_empty());
    let before = unsent.taken(&ours);
    // Less than would make the kernel ask for more.
    theirs.read_exact(&mut vec![0; 500_000]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while unsent.taken(&ours) < before + 100_000 {
        assert!(Instant::now() < deadline, "{} of 500000", unsent.taken(&ours) - before);
        std::thread::yield_now();
    }
}

#[test]
fn a_file_behind_a_head_needs_no_other_file_to_wait() {
    let (ours, _theirs) = pair();
    let temp = TempFiles::of_test(Some(0));
    let mut unsent = Unsent::default();
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    assert!(!unsent.send_file(&ours, file, 0, 1 << 20).unwrap());
    unsent.pieces.push_front(Piece::Copied(b"head".to_vec(), 0));
    assert!(unsent.move_to_file(&temp).is_ok());
}

#[test]
fn a_client_that_is_gone_is_noticed() {
    let (ours, theirs) = pair();
    drop(theirs);
    let mut unsent = Unsent::default();
    assert!(unsent.send_or_spill(&ours, &[b"x"], &TempFiles::of_test(None)).is_err());
    assert!(unsent.send(&ours, &[b"x"], &mut |_| None).is_err());
}

#[test]
fn what_waits_in_memory_is_moved_to_a_file_in_order_or_stays() {
    for limit in [None, Some(1 << 20)] {
        let (ours, mut theirs) = pair();
        let temp = TempFiles::of_test(limit);
        let mut unsent = Unsent::default();
        let part: Vec<u8> = (0..2_000_000u32).map(|at| (at / 7) as u8).collect();
        unsent.send(&ours, &[b"head", &part], &mut |_| Some(Box::new(part.clone()))).unwrap();
        unsent.copy(b"tail");
        assert_eq!(unsent.in_memory(), 2_000_004);
        assert_eq!(unsent.move_to_file(&temp).is_ok(), limit.is_none());
        assert_eq!(unsent.in_memory(), if limit.is_none() { 0 } else { 2_000_004 });
        let (mut received, mut buf) = (Vec::new(), vec![0; 100_000]);
        while !unsent.advance(&ours).unwrap() || received.len() < part.len() + 8 {
            let count = theirs.read(&mut buf).unwrap();
            received.extend_from_slice(&buf[..count]);
        }
        assert!(received == [b"head", part.as_slice(), b"tail"].concat());
        assert_eq!(temp.taken(), 0);
    }
}
