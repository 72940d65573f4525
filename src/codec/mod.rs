//! Compression of captured values: byte planes, each stored raw or by zstd, whichever is smaller.
//!
//! Bits are rotated left by one, so that the exponent of f32 and bf16 fills the first plane and the sign joins the
//! mantissa. Exponents compress well; low mantissa planes are noise and are recognised by their entropy, so that no
//! time is spent on them.

#![allow(unsafe_code)]

use crate::error::{Error, Result};
use crate::record::PlaneV1;
use crate::tensor::Dtype;
use std::cell::RefCell;
use zstd::zstd_safe::{CParameter, ParamSwitch};

/// One of zstd's fastest levels: with literals compressed ([`ParamSwitch::Enable`]) it keeps nearly the ratio of level 1
/// on exponent planes. `benches/trace_file.rs` prints speed and ratio.
const LEVEL: i32 = -100;

/// Above this many bits a byte, measured on a sample, a plane is stored raw.
const NOISE_BITS: f64 = 7.5;

/// Bytes of a plane that are sampled for its entropy.
const SAMPLE: usize = 4096;

/// Plane stored as it is.
pub const RAW: u8 = 0;
/// Plane stored as one zstd frame.
pub const ZSTD: u8 = 1;

/// Encoder with its reusable buffers and zstd context.
pub struct Encoder {
    zstd: zstd::bulk::Compressor<'static>,
    planes: Vec<u8>,
    packed: Vec<u8>,
}

impl Encoder {
    /// A fresh encoder.
    pub fn new() -> Result<Self> {
        let zstd = compressor().map_err(|cause| Error::internal("cannot set up zstd").because(cause))?;
        Ok(Encoder { zstd, planes: Vec::new(), packed: Vec::new() })
    }

    /// Splits little-endian `raw` values of `dtype` into planes and puts them in `out` in place of what it holds: noise
    /// first, as it is, then what compresses. Gives the planes' places, most significant first.
    pub fn encode(&mut self, dtype: Dtype, raw: &[u8], out: &mut Vec<u8>) -> Result<Vec<PlaneV1>> {
        match dtype {
            Dtype::F32 => self.encode_words::<4>(raw.as_chunks().0, out),
            Dtype::F16 | Dtype::Bf16 => self.encode_words::<2>(raw.as_chunks().0, out),
        }
    }

    fn encode_words<const SIZE: usize>(&mut self, words: &[[u8; SIZE]], out: &mut Vec<u8>) -> Result<Vec<PlaneV1>>
    where
        [u8; SIZE]: Word,
    {
        let length = words.len();
        let noise = entropy_bits::<_, SIZE>(words).map(|bits| bits >= NOISE_BITS);
        let noisy = noise.iter().filter(|noise| **noise).count();
        // What was there before is written over: a vector that is used again is not filled with zeros first.
        out.resize(noisy * length, 0);
        self.planes.resize((SIZE - noisy) * length, 0);
        // Noise is split straight into its place; the rest goes by way of zstd.
        let mut stored = out.chunks_exact_mut(length.max(1));
        let mut waiting = self.planes.chunks_exact_mut(length.max(1));
        split(words, noise.map(|noise| if noise { stored.next() } else { waiting.next() }.unwrap_or_default()));
        let (mut raw_end, mut waiting) = (0, self.planes.chunks_exact(length.max(1)));
        let mut places = Vec::with_capacity(SIZE);
        for noise in noise {
            let (codec, offset, end) = if noise {
                raw_end += length;
                (RAW, raw_end - length, raw_end)
            } else {
                let offset = out.len();
                let plane = waiting.next().unwrap_or_default();
                (append_smaller(&mut self.zstd, plane, &mut self.packed, out)?, offset, out.len())
            };
            places.push(PlaneV1 { codec, offset: length_u32(offset)?, length: length_u32(end - offset)? });
        }
        Ok(places)
    }
}

fn compressor() -> std::io::Result<zstd::bulk::Compressor<'static>> {
    let mut zstd = zstd::bulk::Compressor::new(LEVEL)?;
    zstd.set_parameter(CParameter::LiteralCompressionMode(ParamSwitch::Enable))?;
    zstd.set_parameter(CParameter::ContentSizeFlag(false))?;
    zstd.set_parameter(CParameter::ChecksumFlag(false))?;
    Ok(zstd)
}

thread_local! {
    // Setting up a zstd context costs more than a small body.
    static PACKER: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static UNPACKER: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// What the slot holds, made first where it is empty.
fn reused<T>(slot: &mut Option<T>, make: impl FnOnce() -> std::io::Result<T>) -> std::io::Result<&mut T> {
    match slot {
        Some(held) => Ok(held),
        None => Ok(slot.insert(make()?)),
    }
}

/// The most times that a body may grow when it is decompressed: the guard against a small file that fills memory.
pub const MAX_BODY_EXPANSION: usize = 1024;

/// Compresses the body of a frame by zstd level 1, if that makes it smaller and not too small to be believed.
pub fn compress_body(body: &[u8]) -> Option<Vec<u8>> {
    let packed =
        PACKER.with_borrow_mut(|packer| reused(packer, || zstd::bulk::Compressor::new(1))?.compress(body)).ok()?;
    let believable = packed.len().saturating_mul(MAX_BODY_EXPANSION) >= body.len();
    (packed.len() < body.len() && believable).then_some(packed)
}

/// The most times that a plane may grow: zstd spends at least four bytes on a block, which holds at most 128 KiB.
const MAX_PLANE_EXPANSION: usize = 1 << 15;

/// Refuses a stated length that `packed` cannot hold, before memory is taken for it.
///
/// # Errors
/// Damaged, where `length` is more than `expansion` times the packed bytes or more than their blocks can give.
pub fn check_expansion(packed: &[u8], length: usize, expansion: usize) -> Result<()> {
    let held = zstd::zstd_safe::decompress_bound(packed).unwrap_or(0);
    if length > packed.len().saturating_mul(expansion) || length as u64 > held {
        return Err(Error::damaged(format!("{} compressed bytes cannot hold the stated {length}", packed.len())));
    }
    Ok(())
}

/// Decompresses one zstd frame into exactly `out`; anything longer or shorter is an error.
pub fn decompress_exact(packed: &[u8], out: &mut [u8]) -> Result<()> {
    let length = UNPACKER
        .with_borrow_mut(|unpacker| reused(unpacker, zstd::bulk::Decompressor::new)?.decompress_to_buffer(packed, out))
        .map_err(|cause| Error::damaged("compressed bytes do not decompress to their stated length").because(cause))?;
    if length != out.len() {
        return Err(Error::damaged(format!("decompressed to {length} bytes, expected {}", out.len())));
    }
    Ok(())
}

fn append_smaller(
    zstd: &mut zstd::bulk::Compressor<'static>,
    plane: &[u8],
    packed: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> Result<u8> {
    packed.clear();
    packed.reserve(zstd::zstd_safe::compress_bound(plane.len()));
    zstd.compress_to_buffer(plane, packed).map_err(|cause| Error::internal("zstd failed").because(cause))?;
    let smaller = packed.len() < plane.len();
    out.extend_from_slice(if smaller { packed } else { plane });
    Ok(if smaller { ZSTD } else { RAW })
}

/// Shannon entropy of the byte histogram of each plane, in bits per byte, over an evenly spread sample.
fn entropy_bits<W: Word, const SIZE: usize>(words: &[W]) -> [f64; SIZE] {
    let stride = (words.len() / SAMPLE).max(1);
    let mut histograms = [[0u32; 256]; SIZE];
    let mut total = 0u32;
    for word in words.iter().step_by(stride) {
        for (place, histogram) in histograms.iter_mut().enumerate() {
            histogram[usize::from(word.rotated_byte(place))] += 1;
        }
        total += 1;
    }
    let total = f64::from(total.max(1));
    let share = |count: &u32| f64::from(*count) / total;
    histograms.map(|histogram| histogram.iter().filter(|count| **count > 0).map(share).map(|p| -p * p.log2()).sum())
}

fn length_u32(length: usize) -> Result<u32> {
    u32::try_from(length).map_err(|_| Error::internal("a payload outgrew 4 GiB"))
}

/// A little-endian value; rotated left by one bit, its bytes go to planes.
trait Word: Copy {
    /// Byte `place` of the rotated value, 0 being the most significant.
    fn rotated_byte(self, place: usize) -> u8;
}

impl Word for [u8; 4] {
    #[inline(always)]
    fn rotated_byte(self, place: usize) -> u8 {
        (u32::from_le_bytes(self).rotate_left(1) >> (24 - 8 * place)) as u8
    }
}

impl Word for [u8; 2] {
    #[inline(always)]
    fn rotated_byte(self, place: usize) -> u8 {
        (u16::from_le_bytes(self).rotate_left(1) >> (8 - 8 * place)) as u8
    }
}

/// Splits words into one plane a byte, each as long as there are words.
fn split<W: Word, const SIZE: usize>(words: &[W], planes: [&mut [u8]; SIZE]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor was just found to have AVX2.
        return unsafe { split_avx2(words, planes) };
    }
    split_any(words, planes);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn split_avx2<W: Word, const SIZE: usize>(words: &[W], planes: [&mut [u8]; SIZE]) {
    split_any(words, planes);
}

#[inline(always)]
fn split_any<W: Word, const SIZE: usize>(words: &[W], planes: [&mut [u8]; SIZE]) {
    // A stretch of words stays at hand while its planes are made one by one, each by a loop of vector instructions.
    const STRETCH: usize = 2048;
    let mut planes = planes.map(|plane| plane.chunks_mut(STRETCH));
    for words in words.chunks(STRETCH) {
        for (place, plane) in planes.iter_mut().enumerate() {
            for (byte, word) in plane.next().unwrap_or_default().iter_mut().zip(words) {
                *byte = word.rotated_byte(place);
            }
        }
    }
}

/// Puts planes back together as little-endian values of `dtype`: `elements` of them.
///
/// # Errors
/// As [`Decoder::decode`].
pub fn decode(dtype: Dtype, elements: usize, planes: &[PlaneV1], bytes: &[u8]) -> Result<Vec<u8>> {
    let mut decoder = Decoder::default();
    decoder.decode(dtype, elements, planes, bytes)?;
    Ok(decoder.raw)
}

/// Decoder with its reusable buffers.
#[derive(Default)]
pub struct Decoder {
    planes: [Vec<u8>; 4],
    raw: Vec<u8>,
}

impl Decoder {
    /// Puts planes back together as little-endian values of `dtype`: `elements` of them.
    ///
    /// # Errors
    /// Damaged, where planes are missing, lie outside `bytes` or do not decompress to one byte per element.
    pub fn decode(&mut self, dtype: Dtype, elements: usize, planes: &[PlaneV1], bytes: &[u8]) -> Result<&[u8]> {
        if planes.len() != dtype.size() {
            return Err(Error::damaged(format!("{} byte planes, expected {}", planes.len(), dtype.size())));
        }
        let mut unpacked: [&[u8]; 4] = [&[]; 4];
        for ((plane, buffer), unpacked) in planes.iter().zip(&mut self.planes).zip(&mut unpacked) {
            *unpacked = unpack(plane, elements, bytes, buffer)?;
        }
        self.raw.resize(elements * dtype.size(), 0);
        let [a, b, c, d] = unpacked;
        if dtype.size() == 4 {
            let inputs = a.iter().zip(b).zip(c).zip(d);
            for (word, (((a, b), c), d)) in self.raw.as_chunks_mut::<4>().0.iter_mut().zip(inputs) {
                *word = u32::from_be_bytes([*a, *b, *c, *d]).rotate_right(1).to_le_bytes();
            }
        } else {
            for (word, (a, b)) in self.raw.as_chunks_mut::<2>().0.iter_mut().zip(a.iter().zip(b)) {
                *word = u16::from_be_bytes([*a, *b]).rotate_right(1).to_le_bytes();
            }
        }
        Ok(&self.raw)
    }
}

/// A plane's bytes: where they are stored, or decompressed into `buffer`.
fn unpack<'a>(plane: &PlaneV1, elements: usize, bytes: &'a [u8], buffer: &'a mut Vec<u8>) -> Result<&'a [u8]> {
    let start = plane.offset as usize;
    let stored = start
        .checked_add(plane.length as usize)
        .and_then(|end| bytes.get(start..end))
        .ok_or_else(|| Error::damaged("a byte plane lies outside its payload"))?;
    match plane.codec {
        RAW if stored.len() == elements => Ok(stored),
        RAW => Err(Error::damaged(format!("a raw plane of {} bytes, expected {elements}", stored.len()))),
        ZSTD => {
            check_expansion(stored, elements, MAX_PLANE_EXPANSION)?;
            buffer.resize(elements, 0);
            decompress_exact(stored, buffer)?;
            Ok(buffer)
        }
        other => Err(Error::damaged(format!("unknown plane codec {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(dtype: Dtype, raw: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let planes = Encoder::new().unwrap().encode(dtype, raw, &mut bytes).unwrap();
        decode(dtype, raw.len() / dtype.size(), &planes, &bytes).unwrap()
    }

    proptest! {
        #[test]
        fn every_bit_pattern_of_every_type_comes_back(words in prop::collection::vec(any::<u32>(), 0..600)) {
            let raw: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
                prop_assert_eq!(round_trip(dtype, &raw), raw.clone());
            }
        }

        #[test]
        fn hostile_planes_give_errors(codec in 0u8..3, offset in any::<u32>(), length in any::<u32>(),
                                      bytes in prop::collection::vec(any::<u8>(), 0..64), elements in 0usize..100) {
            let plane = PlaneV1 { codec, offset, length };
            let _ = decode(Dtype::F32, elements, &vec![plane; 4], &bytes);
        }
    }

    #[test]
    fn smooth_values_shrink_and_noise_does_not_grow() {
        let smooth: Vec<u8> = (0..10_000).flat_map(|i| ((i as f32).sin()).to_le_bytes()).collect();
        let mut bytes = Vec::new();
        let planes = Encoder::new().unwrap().encode(Dtype::F32, &smooth, &mut bytes).unwrap();
        assert!(bytes.len() < smooth.len() * 9 / 10);
        assert_eq!(planes[0].codec, ZSTD, "the exponent plane compresses");
        assert_eq!(planes[3].codec, RAW, "the lowest mantissa plane is noise");
    }

    #[test]
    fn a_bomb_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0; 1 << 20], 1).unwrap();
        let mut out = [0; 16];
        assert!(decompress_exact(&bomb, &mut out).is_err());
    }
}
