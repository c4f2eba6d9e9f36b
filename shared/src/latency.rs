//! The latency histogram: its fixed bucket layout, and its form on the wire.
//!
//! Values are microseconds from 1 µs to one hour with two significant digits. The layout is `hdrhistogram`'s own, so
//! that a plain array of counters (a scoreboard's) and a [`Histogram`] are two views of the same thing. What is shown
//! of histograms is always a percentile of merged counts, never an average of averages.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use thiserror::Error;

/// Counts of latencies in µs.
pub type Histogram = hdrhistogram::Histogram<u64>;

/// The largest value that is distinguished, in µs: one hour. Larger ones are counted as this.
pub const HIGHEST: u64 = 3_600_000_000;
/// Decimal digits that are kept of a value: the error is below 1 %.
pub const SIGNIFICANT_DIGITS: u8 = 2;
/// How many counters an array of this layout has.
pub const BUCKETS: usize = 26 << HALF_MAGNITUDE;

/// log2 of half the linear steps in a bucket: 256 steps distinguish two significant digits.
const HALF_MAGNITUDE: u32 = 7;

/// The counter that `value` (µs) belongs to; always below [`BUCKETS`].
#[must_use]
#[inline]
pub fn index_of(value: u64) -> usize {
    let value = value.clamp(1, HIGHEST);
    let bucket = 64 - (value | 0xff).leading_zeros() - (HALF_MAGNITUDE + 1);
    let step = value >> bucket;
    (((bucket as usize) << HALF_MAGNITUDE) + step as usize).min(BUCKETS - 1)
}

/// The lowest value (µs) that is counted at `index`; the inverse of [`index_of`].
#[must_use]
pub fn value_of(index: usize) -> u64 {
    let bucket = (index >> HALF_MAGNITUDE).saturating_sub(1);
    let step = index - (bucket << HALF_MAGNITUDE);
    (step as u64) << bucket
}

/// An empty histogram of this layout.
#[must_use]
pub fn empty() -> Histogram {
    // Constant bounds that the constructor accepts; a unit test calls it.
    Histogram::new_with_bounds(1, HIGHEST, SIGNIFICANT_DIGITS).expect("the layout's bounds are valid")
}

/// A histogram with the counts of an array of this layout, as `(index, count)` pairs.
#[must_use]
pub fn from_counts(counts: impl IntoIterator<Item = (usize, u64)>) -> Histogram {
    let mut histogram = empty();
    for (index, count) in counts {
        if count > 0 {
            histogram.saturating_record_n(value_of(index), count);
        }
    }
    histogram
}

/// What is wrong with an encoded histogram.
#[derive(Debug, Error)]
pub enum LatencyError {
    /// The text is not base64.
    #[error("latency histogram: not base64: {0}")]
    Base64(#[from] base64::DecodeError),
    /// The bytes do not begin as those of an HDR histogram in V2 encoding with this layout do, or end elsewhere.
    #[error("latency histogram: not an HDR histogram in V2 encoding from 1 µs to 1 h with 2 significant digits")]
    Layout,
    /// The counters are not encoded as they must be.
    #[error("latency histogram: its counters are damaged: {0:?}")]
    Encoding(hdrhistogram::serialization::DeserializeError),
    /// It counts more than a number can hold.
    #[error("latency histogram: its counters add up to more than can have happened")]
    TooMany,
    /// The two snapshots are not of one server process: a count became smaller.
    #[error("latency histogram: a later snapshot counts less than an earlier one")]
    WentBackwards,
}

/// The document's form of a histogram: HDR V2 encoding, in base64.
#[must_use]
pub fn encode(histogram: &Histogram) -> String {
    let mut bytes = Vec::new();
    // Writing to a Vec cannot fail, and every count of ours fits the encoding's i64.
    let _ = V2Serializer::new().serialize(histogram, &mut bytes);
    STANDARD.encode(bytes)
}

/// The document's form of an array of counters of this layout, which may end after its last counter in use: the same
/// text as [`encode`] of [`from_counts`], without the histogram between. A stats server writes one for every worker at
/// every poll.
#[must_use]
pub fn encode_counts(counts: &[u64]) -> String {
    let counts = &counts[..counts.len().min(BUCKETS)];
    let used = counts.iter().rposition(|count| *count != 0).map_or(0, |last| last + 1);
    let counts = &counts[..used];
    // Room for the longest form of every counter: what is not used costs less than to ask at each whether there is more.
    let mut bytes = vec![0; V2_HEADER + (used + 1) * VARINT_MAX];
    let mut end = V2_HEADER;
    let mut at = 0;
    while let Some(&count) = counts.get(at) {
        let value = if count == 0 {
            // A run of empty counters is its negated length; a single one is the count 0.
            let zeros = counts[at..].iter().position(|count| *count != 0).unwrap_or(used - at);
            at += zeros;
            if zeros == 1 { 0 } else { ((zeros as u64) << 1) - 1 }
        } else {
            at += 1;
            // The encoding is signed.
            count.min(i64::MAX as u64) << 1
        };
        end = write_varint(&mut bytes, end, value);
    }
    if used == 0 {
        // An empty histogram still has its first counter.
        end = write_varint(&mut bytes, end, 0);
    }

    bytes[..V2_HEADER].copy_from_slice(&header(end - V2_HEADER));
    STANDARD.encode(&bytes[..end])
}

/// What stands before counters that take `len` bytes.
fn header(len: usize) -> [u8; V2_HEADER] {
    let mut header = [0; V2_HEADER];
    header[0..4].copy_from_slice(&V2_COOKIE.to_be_bytes());
    header[4..8].copy_from_slice(&(len as u32).to_be_bytes());
    // From 8 to 12, the index of the first counter: 0.
    header[12..16].copy_from_slice(&u32::from(SIGNIFICANT_DIGITS).to_be_bytes());
    header[16..24].copy_from_slice(&1u64.to_be_bytes());
    header[24..32].copy_from_slice(&HIGHEST.to_be_bytes());
    header[32..40].copy_from_slice(&1f64.to_be_bytes());
    header
}

/// The V2 encoding's first word: version 2, counters of variable length.
const V2_COOKIE: u32 = 0x1c84_9303 | 0x10;
/// Length of what stands before the counters, bytes.
const V2_HEADER: usize = 40;

/// The longest form of a counter, bytes.
const VARINT_MAX: usize = 9;

/// LEB128 that ends after nine bytes, the ninth with eight bits of value. Returns where it ended.
#[inline]
fn write_varint(bytes: &mut [u8], mut at: usize, mut value: u64) -> usize {
    let last = at + VARINT_MAX - 1;
    while value >= 0x80 && at < last {
        bytes[at] = value as u8 | 0x80;
        at += 1;
        value >>= 7;
    }
    bytes[at] = value as u8;
    at + 1
}

/// Reads what [`encode`] wrote. What comes of it takes no more memory than a histogram of this layout, and its counts
/// add up, whatever the text.
///
/// # Errors
/// When the text is not base64, or not a V2-encoded histogram of this layout.
pub fn decode(text: &str) -> Result<Histogram, LatencyError> {
    let histogram: Histogram =
        Deserializer::new().deserialize(&mut checked(text)?.as_slice()).map_err(LatencyError::Encoding)?;
    // The sum stays at the largest number.
    if histogram.len() == u64::MAX { Err(LatencyError::TooMany) } else { Ok(histogram) }
}

/// The counters of what [`encode`] wrote that are not 0, with their places, ascending: much less work than [`decode`] for
/// who only goes through them once.
///
/// # Errors
/// When the text is not base64, or not a V2-encoded histogram of this layout.
pub fn decode_counts(text: &str) -> Result<Vec<(u16, u64)>, LatencyError> {
    let bytes = checked(text)?;
    let mut rest = &bytes[V2_HEADER..];
    // A route's histogram has few counters in use, and there are hundreds of those.
    let mut counts = Vec::with_capacity(64);
    let mut index = 0_usize;
    while !rest.is_empty() {
        let value = read_varint(&mut rest).ok_or(LatencyError::Layout)?;
        let count = value >> 1;
        // Odd values are negative, the length of a run of zeros: -1 is 1.
        if value & 1 == 1 {
            index = index.saturating_add(usize::try_from(count).unwrap_or(usize::MAX)).saturating_add(1);
            continue;
        }
        if count > 0 {
            let place = u16::try_from(index).ok().filter(|_| index < BUCKETS);
            counts.push((place.ok_or(LatencyError::Layout)?, count));
        }
        index = index.saturating_add(1);
    }
    Ok(counts)
}

/// The bytes of a text whose length of the counters and their number, which decide how much memory is taken, are what they
/// must be.
fn checked(text: &str) -> Result<Vec<u8>, LatencyError> {
    let bytes = STANDARD.decode(text)?;
    let is_ours = bytes.len() >= V2_HEADER && bytes[..V2_HEADER] == header(bytes.len() - V2_HEADER);
    if is_ours { Ok(bytes) } else { Err(LatencyError::Layout) }
}

/// The reverse of [`write_varint`]; `None` when it ends too early.
#[inline]
fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for nth in 0..VARINT_MAX {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let is_last = nth == VARINT_MAX - 1 || byte & 0x80 == 0;
        let bits = if nth == VARINT_MAX - 1 { *byte } else { byte & 0x7f };
        value |= u64::from(bits) << (7 * nth);
        if is_last {
            break;
        }
    }
    Some(value)
}

/// What happened between two snapshots of one histogram: `later - earlier`.
///
/// # Errors
/// When `later` holds less than `earlier` anywhere: the server was restarted between them.
pub fn since(later: &Histogram, earlier: &Histogram) -> Result<Histogram, LatencyError> {
    let mut difference = later.clone();
    difference.subtract(earlier).map_err(|_| LatencyError::WentBackwards)?;
    Ok(difference)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_array_is_as_long_as_hdrhistogram_s_own() {
        assert_eq!(empty().distinct_values(), BUCKETS);
    }

    #[test]
    fn the_longest_latency_has_the_last_counters_and_more_is_counted_as_it() {
        assert_eq!(index_of(u64::MAX), index_of(HIGHEST));
        assert!(index_of(HIGHEST) < BUCKETS);
        assert_eq!(index_of(0), index_of(1));
    }

    #[test]
    fn a_restarted_server_s_counts_do_not_become_a_difference() {
        let (mut earlier, mut later) = (empty(), empty());
        earlier.record_n(100, 5).unwrap();
        later.record_n(100, 2).unwrap();
        assert!(since(&later, &earlier).is_err());
        assert_eq!(since(&earlier, &later).unwrap().len(), 3);
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(decode("%%%").is_err());
        assert!(decode("AAAA").is_err());
    }

    #[test]
    fn lengths_and_layouts_that_would_take_much_memory_are_refused() {
        let good = STANDARD.decode(encode_counts(&[0, 5])).unwrap();
        assert_eq!(decode(&STANDARD.encode(&good)).unwrap().len(), 5);
        // The length of the counters, the significant digits, the highest value; and a byte too many.
        for (place, value) in [(4, 0x7f), (15, 5), (24, 0x7f), (0, 0)] {
            let mut bytes = good.clone();
            bytes[place] = value;
            assert!(matches!(decode(&STANDARD.encode(bytes)), Err(LatencyError::Layout)), "byte {place}");
        }
        assert!(decode(&STANDARD.encode([&good[..], &[0]].concat())).is_err());
    }

    #[test]
    fn counts_that_no_sum_can_hold_are_refused() {
        let text = encode_counts(&[0, u64::MAX, u64::MAX, u64::MAX]);
        let decoded = decode(&text).map(|histogram| histogram.len());
        assert!(matches!(decoded, Err(LatencyError::TooMany)), "{decoded:?}");
        let two = decode(&encode_counts(&[0, u64::MAX, u64::MAX])).unwrap();
        assert_eq!((two.len(), two.max()), (u64::MAX - 1, 2));
    }

    #[test]
    fn an_array_is_encoded_as_the_library_encodes_its_histogram() {
        for counts in [
            vec![],
            vec![0; BUCKETS],
            vec![0, 5],
            vec![0, 0, 0, 1, 0, 300, 0, 0, u64::from(u32::MAX) * 1_000, 0, 0],
            vec![0, 1 << 55, (1 << 62) + 5],
        ] {
            assert_eq!(encode_counts(&counts), encode(&from_counts(counts.iter().copied().enumerate())), "{counts:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_histogram_or_an_error(counters in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = [&header(counters.len())[..], &counters].concat();
            let text = STANDARD.encode(bytes);
            let _ = decode_counts(&text);
            if let Ok(histogram) = decode(&text) {
                let sum = histogram.iter_recorded().fold(0u64, |sum, step| sum.checked_add(step.count_at_value()).unwrap());
                prop_assert_eq!(sum, histogram.len());
                let counts = decode_counts(&text).unwrap();
                prop_assert_eq!(from_counts(counts.into_iter().map(|(index, count)| (index.into(), count))), histogram);
            }
        }

        #[test]
        fn an_array_of_any_counts_reads_back(counts in prop::collection::vec((1..BUCKETS, 0..1u64 << 40), 0..40)) {
            let mut array = vec![0; BUCKETS];
            for (index, count) in counts {
                array[index] = count;
            }
            let histogram = from_counts(array.iter().copied().enumerate());
            prop_assert_eq!(encode_counts(&array), encode(&histogram));
        }

        #[test]
        fn array_and_histogram_count_alike(values in prop::collection::vec(1..HIGHEST, 1..50)) {
            let (mut counts, mut direct) = (vec![0u64; BUCKETS], empty());
            for value in &values {
                counts[index_of(*value)] += 1;
                direct.record(*value).unwrap();
            }
            let through_array = from_counts(counts.into_iter().enumerate());
            for quantile in [0.0, 0.5, 0.9, 0.99, 1.0] {
                prop_assert_eq!(through_array.value_at_quantile(quantile), direct.value_at_quantile(quantile));
            }
            prop_assert_eq!(decode(&encode(&direct)).unwrap(), direct);
        }

        #[test]
        fn a_bucket_s_lowest_value_is_its_own(index in 1..BUCKETS) {
            let value = value_of(index);
            if value <= HIGHEST {
                prop_assert_eq!(index_of(value), index);
            }
        }
    }
}
