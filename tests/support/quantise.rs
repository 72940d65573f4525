//! Simple quantisers: a block's bytes and the values that they stand for.
//!
//! Both are worked out here from the description of the format, and not with the product's code. Scales are the plain
//! ones (extreme or range over the largest code), with none of the search that ggml does for better ones.

use half::f16;
use std::iter::zip;

/// Bytes of a block, and its values.
type Block = (Vec<u8>, Vec<f32>);

/// Blocks of one type.
pub struct Format {
    pub name: &'static str,
    /// ggml's number of the type.
    pub number: u32,
    pub block_elements: usize,
    /// The block for `block_elements` values.
    pub quantise: fn(&[f32]) -> Block,
}

pub const FORMATS: [Format; 10] = [
    Format { name: "q4_0", number: 2, block_elements: 32, quantise: q4_0 },
    Format { name: "q4_1", number: 3, block_elements: 32, quantise: q4_1 },
    Format { name: "q5_0", number: 6, block_elements: 32, quantise: q5_0 },
    Format { name: "q5_1", number: 7, block_elements: 32, quantise: q5_1 },
    Format { name: "q2_k", number: 10, block_elements: 256, quantise: q2_k },
    Format { name: "q3_k", number: 11, block_elements: 256, quantise: q3_k },
    Format { name: "q5_k", number: 13, block_elements: 256, quantise: q5_k },
    Format { name: "iq4_nl", number: 20, block_elements: 32, quantise: iq4_nl },
    Format { name: "iq4_xs", number: 23, block_elements: 256, quantise: iq4_xs },
    Format { name: "mxfp4", number: 39, block_elements: 32, quantise: mxfp4 },
];

/// Plain elements, and blocks that files of other programs in the tree have too.
pub const F16: Format = Format { name: "f16", number: 1, block_elements: 1, quantise: f16 };
pub const Q8_0: Format = Format { name: "q8_0", number: 8, block_elements: 32, quantise: q8_0 };
pub const Q4_K: Format = Format { name: "q4_k", number: 12, block_elements: 256, quantise: q4_k };
pub const Q6_K: Format = Format { name: "q6_k", number: 14, block_elements: 256, quantise: q6_k };

const NON_LINEAR: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
const E2M1_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

fn half(x: f32) -> f32 {
    f16::from_f32(x).to_f32()
}

fn bytes_of(x: f32) -> [u8; 2] {
    f16::from_f32(x).to_le_bytes()
}

/// The element of largest magnitude, with its sign.
fn extreme(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |max, x| if x.abs() > f32::abs(max) { *x } else { max })
}

fn ratio(x: f32, d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { (x / d).round() }
}

/// For each element the code (below `codes`) whose value is nearest, and that value.
fn coded(x: &[f32], codes: u8, value: impl Fn(u8) -> f32) -> (Vec<u8>, Vec<f32>) {
    let off = |code: u8, x: f32| (value(code) - x).abs();
    let code = |x: &f32| (0..codes).min_by(|a, b| off(*a, *x).total_cmp(&off(*b, *x))).unwrap();
    let codes: Vec<u8> = x.iter().map(code).collect();
    let values = codes.iter().map(|code| value(*code)).collect();
    (codes, values)
}

/// 32 codes as 16 bytes: the first half in the low nibbles.
fn nibbles(codes: &[u8]) -> Vec<u8> {
    zip(&codes[..16], &codes[16..]).map(|(low, high)| low & 15 | high << 4).collect()
}

fn fifths(codes: &[u8]) -> [u8; 4] {
    zip(codes, 0..).fold(0u32, |bits, (code, i)| bits | u32::from(code >> 4) << i).to_le_bytes()
}

fn f16(x: &[f32]) -> Block {
    (x.iter().flat_map(|x| bytes_of(*x)).collect(), x.iter().map(|x| half(*x)).collect())
}

fn q8_0(x: &[f32]) -> Block {
    let d = extreme(x).abs() / 127.0;
    let codes: Vec<f32> = x.iter().map(|x| ratio(*x, d)).collect();
    let bytes = codes.iter().map(|code| (*code as i8).cast_unsigned());
    (bytes_of(d).into_iter().chain(bytes).collect(), codes.iter().map(|code| code * half(d)).collect())
}

fn q4_0(x: &[f32]) -> Block {
    let d = half(extreme(x) / -8.0);
    let (codes, values) = coded(x, 16, |code| d * (f32::from(code) - 8.0));
    ([&bytes_of(d)[..], &nibbles(&codes)].concat(), values)
}

fn q5_0(x: &[f32]) -> Block {
    let d = half(extreme(x) / -16.0);
    let (codes, values) = coded(x, 32, |code| d * (f32::from(code) - 16.0));
    ([&bytes_of(d)[..], &fifths(&codes), &nibbles(&codes)].concat(), values)
}

/// Step and least value of `steps` equal steps.
fn range(x: &[f32], steps: f32) -> (f32, f32) {
    let (least, most) = x.iter().fold((f32::MAX, f32::MIN), |(least, most), x| (least.min(*x), most.max(*x)));
    ((most - least) / steps, least)
}

fn q4_1(x: &[f32]) -> Block {
    let (d, m) = range(x, 15.0);
    let (d, m) = (half(d), half(m));
    let (codes, values) = coded(x, 16, |code| d * f32::from(code) + m);
    ([&bytes_of(d)[..], &bytes_of(m), &nibbles(&codes)].concat(), values)
}

fn q5_1(x: &[f32]) -> Block {
    let (d, m) = range(x, 31.0);
    let (d, m) = (half(d), half(m));
    let (codes, values) = coded(x, 32, |code| d * f32::from(code) + m);
    ([&bytes_of(d)[..], &bytes_of(m), &fifths(&codes), &nibbles(&codes)].concat(), values)
}

fn iq4_nl(x: &[f32]) -> Block {
    let d = half(extreme(x) / -127.0);
    let (codes, values) = coded(x, 16, |code| d * f32::from(NON_LINEAR[usize::from(code)]));
    ([&bytes_of(d)[..], &nibbles(&codes)].concat(), values)
}

fn mxfp4(x: &[f32]) -> Block {
    // The largest magnitude of E2M1 is 6 = 1.5 * 2^2.
    let exponent = (extreme(x).abs().max(1e-30).log2().floor() as i32 - 2 + 127) as u8;
    let d = 2f32.powi(i32::from(exponent) - 128);
    let (codes, values) = coded(x, 16, |code| d * f32::from(E2M1_DOUBLED[usize::from(code)]));
    ([&[exponent][..], &nibbles(&codes)].concat(), values)
}

/// The parts of a super-block whose sub-blocks have a scale and a minimum that is subtracted.
struct WithMinima {
    d: f32,
    dmin: f32,
    scales: Vec<u8>,
    mins: Vec<u8>,
    codes: Vec<u8>,
    values: Vec<f32>,
}

fn with_minima(x: &[f32], sub: usize, codes: u8, largest: f32) -> WithMinima {
    let ranges: Vec<(f32, f32)> = x
        .chunks_exact(sub)
        .map(|x| {
            let least = x.iter().fold(0f32, |least, x| least.min(*x));
            let most = x.iter().fold(0f32, |most, x| most.max(*x));
            ((most - least) / f32::from(codes - 1), -least)
        })
        .collect();
    let d = half(ranges.iter().fold(0f32, |max, (scale, _)| max.max(*scale)) / largest);
    let dmin = half(ranges.iter().fold(0f32, |max, (_, min)| max.max(*min)) / largest);
    let (mut all, mut values, mut scales, mut mins) = (vec![], vec![], vec![], vec![]);
    for (x, (scale, min)) in zip(x.chunks_exact(sub), ranges) {
        let (scale, min) = (ratio(scale, d).min(largest), ratio(min, dmin).min(largest));
        let (step, offset) = (d * scale, dmin * min);
        let (codes, stand_for) = coded(x, codes, |code| step * f32::from(code) - offset);
        all.extend(codes);
        values.extend(stand_for);
        scales.push(scale as u8);
        mins.push(min as u8);
    }
    WithMinima { d, dmin, scales, mins, codes: all, values }
}

/// Four times 32 codes to 32 bytes, two bits of each; twice.
fn pairs(codes: &[u8]) -> Vec<u8> {
    let half = |codes: &[u8]| -> Vec<u8> {
        (0..32).map(|l| (0..4).fold(0, |byte, j| byte | (codes[32 * j + l] & 3) << (2 * j))).collect()
    };
    [half(&codes[..128]), half(&codes[128..])].concat()
}

fn q2_k(x: &[f32]) -> Block {
    let made = with_minima(x, 16, 4, 15.0);
    let scales: Vec<u8> = zip(&made.scales, &made.mins).map(|(scale, min)| scale | min << 4).collect();
    ([&scales[..], &pairs(&made.codes), &bytes_of(made.d), &bytes_of(made.dmin)].concat(), made.values)
}

/// Eight scales and minima of 6 bits in 12 bytes.
fn sixths(s: &[u8], m: &[u8]) -> Vec<u8> {
    let mut packed: Vec<u8> = (0..4).map(|j| s[j] | s[j + 4] >> 4 << 6).collect();
    packed.extend((0..4).map(|j| m[j] | m[j + 4] >> 4 << 6));
    packed.extend((0..4).map(|j| s[j + 4] & 15 | m[j + 4] << 4));
    packed
}

fn q4_k(x: &[f32]) -> Block {
    let made = with_minima(x, 32, 16, 63.0);
    let packed = sixths(&made.scales, &made.mins);
    let quants: Vec<u8> = made
        .codes
        .chunks_exact(64)
        .flat_map(|codes| zip(&codes[..32], &codes[32..]).map(|(low, high)| low | high << 4).collect::<Vec<u8>>())
        .collect();
    ([&bytes_of(made.d)[..], &bytes_of(made.dmin), &packed, &quants].concat(), made.values)
}

fn q5_k(x: &[f32]) -> Block {
    let made = with_minima(x, 32, 32, 63.0);
    let codes = &made.codes;
    let packed = sixths(&made.scales, &made.mins);
    let high: Vec<u8> = (0..32).map(|l| (0..8).fold(0, |byte, s| byte | codes[32 * s + l] >> 4 << s)).collect();
    let low = codes
        .chunks_exact(64)
        .flat_map(|codes| zip(&codes[..32], &codes[32..]).map(|(low, high)| low & 15 | high << 4).collect::<Vec<u8>>());
    let low: Vec<u8> = low.collect();
    ([&bytes_of(made.d)[..], &bytes_of(made.dmin), &packed, &high, &low].concat(), made.values)
}

/// The parts of a super-block whose sub-blocks have a signed scale of 6 bits: `d`, scales plus 32, codes, values.
fn with_signed_scales(
    x: &[f32],
    sub: usize,
    codes: u8,
    level: impl Fn(u8) -> f32,
) -> (f32, Vec<u8>, Vec<u8>, Vec<f32>) {
    let scales: Vec<f32> = x.chunks_exact(sub).map(|x| extreme(x) / level(0)).collect();
    let d = half(extreme(&scales) / -32.0);
    let (mut all, mut values, mut stored) = (vec![], vec![], vec![]);
    for (x, scale) in zip(x.chunks_exact(sub), scales) {
        let scale = ratio(scale, d).clamp(-32.0, 31.0);
        let step = d * scale;
        let (codes, stand_for) = coded(x, codes, |code| step * level(code));
        all.extend(codes);
        values.extend(stand_for);
        stored.push((scale + 32.0) as u8);
    }
    (d, stored, all, values)
}

fn q3_k(x: &[f32]) -> Block {
    let (d, scales, codes, values) = with_signed_scales(x, 16, 8, |code| f32::from(code) - 4.0);
    let high: Vec<u8> = (0..32).map(|l| (0..8).fold(0, |byte, s| byte | codes[32 * s + l] >> 2 << s)).collect();
    let mut packed: Vec<u8> = (0..8).map(|k| scales[k] & 15 | scales[k + 8] << 4).collect();
    packed.extend((0..4).map(|k| (0..4).fold(0, |byte, j| byte | scales[4 * j + k] >> 4 << (2 * j))));
    ([&high[..], &pairs(&codes), &packed, &bytes_of(d)].concat(), values)
}

fn iq4_xs(x: &[f32]) -> Block {
    let (d, scales, codes, values) = with_signed_scales(x, 32, 16, |code| f32::from(NON_LINEAR[usize::from(code)]));
    let high = zip(&scales, 0..).fold(0u16, |bits, (scale, s)| bits | u16::from(scale >> 4) << (2 * s));
    let low: Vec<u8> = scales.chunks_exact(2).map(|pair| pair[0] & 15 | pair[1] << 4).collect();
    let quants: Vec<u8> = codes.chunks_exact(32).flat_map(nibbles).collect();
    ([&bytes_of(d)[..], &high.to_le_bytes(), &low, &quants].concat(), values)
}

fn q6_k(x: &[f32]) -> Block {
    let scales: Vec<f32> = x.chunks_exact(16).map(|x| extreme(x) / -32.0).collect();
    let d = half(extreme(&scales) / -128.0);
    let scales: Vec<f32> = scales.iter().map(|scale| ratio(*scale, d).clamp(-128.0, 127.0)).collect();
    let (mut codes, mut values) = (vec![], vec![]);
    for (x, scale) in zip(x.chunks_exact(16), &scales) {
        let made = coded(x, 64, |code| d * scale * (f32::from(code) - 32.0));
        codes.extend(made.0);
        values.extend(made.1);
    }
    let (mut low, mut high) = (vec![], vec![]);
    for codes in codes.chunks_exact(128) {
        low.extend((0..64).map(|l| codes[l] & 15 | codes[l + 64] << 4));
        high.extend((0..32).map(|l| (0..4).fold(0, |byte, j| byte | codes[32 * j + l] >> 4 << (2 * j))));
    }
    let scales: Vec<u8> = scales.iter().map(|scale| (*scale as i8).cast_unsigned()).collect();
    ([&low[..], &high, &scales, &bytes_of(d)].concat(), values)
}
