//! The culprit as files that anybody can check: its input rows, weights, expected and recorded output as .npy, and a
//! script of a few lines that reads them.

use super::{Class, Finding, verdict};
use crate::error::{Error, Result};
use crate::graph::{Graph, Site};
use crate::model::{Model, Weight};
use crate::replay::{Emulation, Evaluation, Recorded, derive};
use std::path::Path;

/// Weight rows around the culprit's channel that are written: a head of a large model, not a whole matrix.
const MOST_ROWS: usize = 1024;

/// Writes a row of the first wrong operation of `findings` into `folder`: the one that is furthest off. Where the file is
/// wrong, not the kernel, expected is what the weights of `original` make, and those are written beside the run's.
///
/// # Errors
/// Environment, where a file is there already or cannot be written; those of reading trace and model.
pub fn save_case(
    folder: &Path,
    model: &Model,
    graph: &Graph,
    recorded: &Recorded,
    emulation: &Emulation,
    findings: &[Finding],
    original: Option<&Model>,
) -> Result<()> {
    let (_, Some(culprit)) = verdict(findings) else { return Ok(()) };
    let place = (culprit.layer, culprit.point, culprit.occurrence);
    let site = graph.sites.iter().find(|site| (site.layer, site.point, site.occurrence) == place);
    let site = site.ok_or_else(|| Error::internal("a culprit that is no site of the model"))?;
    let derivation = derive(graph, recorded, site.id);
    let position = culprit.position.or_else(|| recorded.positions(site.id).next());
    let (Some(derivation), Some(position)) = (derivation, position) else {
        return Err(Error::usage("the culprit has no recorded rows, so there is no case to write"));
    };
    let original = original.filter(|_| culprit.class == Class::File);
    let arithmetic = emulation.arithmetics.first().copied().unwrap_or_default();
    let mut evaluation = Evaluation::new(original.unwrap_or(model), graph, recorded, &derivation, arithmetic)?;
    let position = position as usize..position as usize + 1;
    std::fs::create_dir_all(folder).map_err(|cause| Error::io("create", folder, cause))?;
    let save = |name: &str, shape: &[usize], values: &[f32]| write(&folder.join(name), &npy(shape, values));
    for (number, rows) in evaluation.inputs(position.clone())?.iter().enumerate() {
        save(&format!("input{number}.npy"), &[rows.row(0).len()], rows.row(0))?;
    }
    let channel = culprit.channel.map_or(0, |channel| channel as usize);
    let mut first = 0;
    for (number, key) in site.weights.iter().enumerate() {
        let (start, rows, values) = slice(model.weight(*key)?, channel)?;
        save(&format!("weight{number}.npy"), &[rows, values.len() / rows.max(1)], &values)?;
        first = if number == 0 { start } else { first };
        if let Some(original) = original {
            let (_, rows, values) = slice(original.weight(*key)?, channel)?;
            save(&format!("original{number}.npy"), &[rows, values.len() / rows.max(1)], &values)?;
        }
    }
    let (expected, kept) = (evaluation.rows(position.clone())?, recorded.values(site.id, position.clone())?);
    save("expected.npy", &[expected.row(0).len()], expected.row(0))?;
    save("recorded.npy", &[kept.row(0).len()], kept.row(0))?;
    write(&folder.join("case.py"), script(site, position.start, first).as_bytes())
}

/// The rows of a weight around `channel`, dequantised: number of the first, how many, values.
fn slice(weight: &Weight, channel: usize) -> Result<(usize, usize, Vec<f32>)> {
    let first =
        if weight.rows <= MOST_ROWS { 0 } else { channel.saturating_sub(MOST_ROWS / 2).min(weight.rows - MOST_ROWS) };
    let rows = weight.rows.min(MOST_ROWS);
    let mut values = vec![0f32; rows * weight.columns];
    for (row, out) in values.chunks_exact_mut(weight.columns.max(1)).enumerate() {
        weight.dequantize_row(first + row, out)?;
    }
    Ok((first, rows, values))
}

/// A script that shows where expected and recorded differ, and for a product makes it again.
fn script(site: &Site, position: usize, first: usize) -> String {
    let layer = site.layer.map_or_else(String::new, |layer| format!("layer {layer}, "));
    let product = match site.operation.name() {
        "mat_mul" => format!(
            "weight, x = np.load('weight0.npy'), np.load('input0.npy')\n\
             rows = slice({first}, {first} + len(weight))\n\
             print('weight @ input', (weight.astype('f8') @ x)[:4], 'of rows', rows)\n"
        ),
        _ => String::new(),
    };
    format!(
        "# {layer}{}: operation {}, position {position}. Weights are dequantised; rows from {first} on.\n\
         import numpy as np\n\
         expected, recorded = np.load('expected.npy'), np.load('recorded.npy')\n\
         error = recorded.astype('f8') - expected\n\
         print('rel_l2', np.linalg.norm(error) / np.linalg.norm(expected.astype('f8')))\n\
         worst = int(np.argmax(np.abs(error)))\n\
         print('worst element', worst, 'expected', expected[worst], 'recorded', recorded[worst])\n{product}",
        site.point,
        site.operation.name(),
    )
}

/// Version 1.0 of numpy's format, little-endian f32 in C order.
fn npy(shape: &[usize], values: &[f32]) -> Vec<u8> {
    let axes: Vec<String> = shape.iter().map(|axis| format!("{axis},")).collect();
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}", axes.join(" "));
    // Magic, version, length and header fill whole 64 bytes, a line break last.
    let length = (10 + header.len() + 1).next_multiple_of(64) - 10;
    header.extend(std::iter::repeat_n(' ', length - 1 - header.len()));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    let file = std::fs::File::create_new(path).map_err(|cause| Error::io("create", path, cause));
    file?.write_all(bytes).map_err(|cause| Error::io("write", path, cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_npy_file_has_a_header_of_whole_64_bytes() {
        let bytes = npy(&[2, 3], &[0.5; 6]);
        assert_eq!((&bytes[..8], bytes.len()), (&b"\x93NUMPY\x01\x00"[..], 128 + 24));
        let header = std::str::from_utf8(&bytes[10..128]).unwrap();
        assert!(
            header.starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3,), }")
                && header.ends_with('\n')
        );
    }
}
