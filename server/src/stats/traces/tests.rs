use super::*;
use std::os::fd::AsFd;

fn entry(number: u64, exception: Option<&ExceptionReport>) -> TraceEntry<'_> {
    TraceEntry {
        ids: TraceIds { trace: u128::MAX - u128::from(number), parent: 1, span: number, application: 3 },
        started: MonotonicNanos::from_nanos(number),
        phases: PhaseNanos { application: 5, ..PhaseNanos::default() },
        protocol: SocketProtocol::Http,
        peer: b"127.0.0.1 1 127.0.0.1 2",
        head: b"GET / HTTP/1.1\r\n\r\n",
        route_name: b"/",
        status: 200,
        body: 7,
        end: TraceEnd::ClientGone,
        exception,
        worker: 2,
        pid: 3,
        thread: 1,
    }
}

fn memory() -> (TraceMemory, TraceCells) {
    let memory = TraceMemory::create(2, 2).unwrap();
    let file = memory.memory().as_fd().try_clone_to_owned().unwrap();
    let cells = TraceCells::map(&file, SlotId::new(1), 2).unwrap();
    (memory, cells)
}

#[test]
fn each_is_taken_once_as_it_was_written_and_those_that_found_no_space_are_counted() {
    let (memory, cells) = memory();
    let mut reader = TraceReader::new(&memory);
    assert!(reader.take(&memory).0.is_empty());
    let raised = ExceptionReport { kind: "E".into(), traceback: vec!["a".into(), "b".into()], ..Default::default() };
    cells.write(ThreadIndex::new(1), &entry(1, Some(&raised)));
    cells.write(ThreadIndex::new(0), &entry(2, None));
    let (taken, lost) = reader.take(&memory);
    assert_eq!((taken.len(), lost), (2, 0));
    assert_eq!(taken[1].ids, entry(1, None).ids);
    assert_eq!(taken[1].exception, ["E", "", "a\nb"]);
    assert_eq!((taken[0].end, taken[0].body, taken[0].server), (TraceEnd::ClientGone, 7, [2, 3, 1]));
    for number in 3..3 + RECORDS + 5 {
        cells.write(ThreadIndex::new(0), &entry(number, None));
    }
    let (taken, lost) = reader.take(&memory);
    let numbers: Vec<_> = taken.iter().map(|report| report.ids.span).collect();
    assert_eq!((numbers, lost), ((3..3 + RECORDS).collect(), 5));
    cells.write(ThreadIndex::new(0), &entry(1, None));
    assert_eq!(reader.take(&memory).0.len(), 1, "there is space again");
}

#[test]
fn the_next_record_wakes_who_sleeps_and_half_a_ring_who_waits() {
    let (memory, cells) = memory();
    let before = memory.wakes();
    cells.write(ThreadIndex::new(0), &entry(1, None));
    assert_eq!(memory.wakes(), before, "it looks by itself");
    memory.set_sleeps(true);
    (1..3).for_each(|number| cells.write(ThreadIndex::new(1), &entry(number, None)));
    assert_eq!(memory.wakes(), before + 1);
    (1..=RECORDS).for_each(|number| cells.write(ThreadIndex::new(0), &entry(number, None)));
    assert_eq!(memory.wakes(), before + 2);
    // Woken before it slept.
    memory.sleep(before, None);
}

#[test]
fn a_request_in_progress_is_known_by_when_it_began() {
    let (memory, cells) = memory();
    let (slot, thread) = (SlotId::new(1), ThreadIndex::new(0));
    let entry = entry(9, None);
    assert_eq!(memory.open(slot, thread, entry.started), None);
    cells.begin(thread, entry.started, &entry.ids);
    assert_eq!(memory.open(slot, thread, entry.started), Some(entry.ids));
    assert_eq!(memory.open(slot, thread, MonotonicNanos::from_nanos(8)), None);
    cells.write(thread, &entry);
    assert_eq!(memory.open(slot, thread, entry.started), None);
}

#[test]
fn what_no_thread_writes_is_not_taken() {
    let (memory, cells) = memory();
    let mut reader = TraceReader::new(&memory);
    let ring = memory.ring(SlotId::new(1), ThreadIndex::new(0));
    ring.written.store(2, Relaxed);
    let (taken, lost) = reader.take(&memory);
    assert_eq!((taken.len(), lost), (0, 2), "nobody has written these");
    ring.written.store(u64::MAX, Relaxed);
    ring.dropped.store(u64::MAX, Relaxed);
    assert_eq!(reader.take(&memory).0.len(), 0);
    cells.write(ThreadIndex::new(0), &entry(1, None));
    assert_eq!(reader.take(&memory).0.len(), 1, "it goes on from there");
    cells.write(ThreadIndex::new(0), &entry(u64::MAX, None));
    let (taken, lost) = reader.take(&memory);
    assert_eq!((taken.len(), lost), (0, 1), "from the future");
}
