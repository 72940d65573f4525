//! Finds the libraries that CUDA consists of: nothing of it is linked, and a host without it runs everything else.

#![allow(unsafe_code)]

use crate::error::{Error, ErrorKind, Result};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use std::path::{Path, PathBuf};

/// A folder list that is looked through first, separated by colons.
const FOLDERS: &str = "ACTRACE_CUDA_LIBRARIES";

/// One library: what it is for, how its file names begin, what it needs loaded before, whether the loader has it.
struct Wanted {
    what: &'static str,
    stem: &'static str,
    before: &'static [&'static str],
    present: fn() -> bool,
}

const DRIVER: Wanted = Wanted { what: "the NVIDIA driver", stem: "libcuda.so", before: &[], present: driver_present };
const NVRTC: Wanted = Wanted {
    what: "NVRTC, which compiles the kernels",
    stem: "libnvrtc.so",
    before: &["libnvrtc-builtins.so"],
    present: nvrtc_present,
};
const CUBLAS: Wanted = Wanted {
    what: "cuBLAS, which makes large products",
    stem: "libcublas.so",
    before: &["libcublasLt.so"],
    present: cublas_present,
};

fn driver_present() -> bool {
    // SAFETY: asks the loader for the library and gives it back; the driver's initialisers have no precondition.
    unsafe { cudarc::driver::sys::is_culib_present() }
}

fn nvrtc_present() -> bool {
    // SAFETY: as of the driver.
    unsafe { cudarc::nvrtc::sys::is_culib_present() }
}

fn cublas_present() -> bool {
    // SAFETY: as of the driver.
    unsafe { cudarc::cublas::sys::is_culib_present() }
}

/// Makes driver, NVRTC and cuBLAS known to the loader.
///
/// # Errors
/// Environment: which of them is missing, and where it was looked for.
pub(super) fn require() -> Result<()> {
    [DRIVER, NVRTC, CUBLAS].iter().try_for_each(find)
}

/// Makes NVRTC alone known to the loader: kernels compile on hosts without a GPU.
///
/// # Errors
/// Environment, as of [`require`].
pub fn require_nvrtc() -> Result<()> {
    find(&NVRTC)
}

/// The loader's own folders first, then those where CUDA and Python's packages put their libraries.
fn find(wanted: &Wanted) -> Result<()> {
    if (wanted.present)() {
        return Ok(());
    }
    let folders = folders();
    for folder in &folders {
        for stem in wanted.before.iter().chain([&wanted.stem]) {
            for file in files(folder, stem) {
                load(&file);
            }
        }
        if (wanted.present)() {
            return Ok(());
        }
    }
    let looked: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    let looked = if looked.is_empty() { "no other folder".to_owned() } else { looked.join(", ") };
    Err(Error::new(
        ErrorKind::Environment,
        format!(
            "no CUDA here: {} ({}) is missing; looked in the loader's folders and in {looked}; install it, name its folder in {FOLDERS}, or use --device cpu",
            wanted.what, wanted.stem
        ),
    ))
}

/// Loads a library for the rest of the process, so that the loader finds it again by its own name.
fn load(file: &Path) {
    // SAFETY: the file bears the name of one of NVIDIA's libraries in a folder where those are installed; their
    // initialisers have no precondition. The handle is never closed.
    if let Ok(library) = unsafe { Library::open(Some(file), RTLD_NOW | RTLD_GLOBAL) } {
        std::mem::forget(library);
    }
}

/// Files of `folder` whose names begin with `stem`.
fn files(folder: &Path, stem: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(stem)))
        .collect();
    files.sort();
    files
}

/// Existing folders where these libraries may be.
fn folders() -> Vec<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let mut folders: Vec<PathBuf> = variable(FOLDERS).iter().flat_map(std::env::split_paths).collect();
    for home in ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(variable) {
        folders.push(home.join("lib64"));
    }
    folders.extend(["/usr/local/cuda/lib64", "/usr/local/nvidia/lib64"].map(PathBuf::from));
    let environments = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(variable);
    let homes = variable("HOME").map(|home| home.join(".local"));
    for prefix in environments.chain(homes).chain(["/usr/local", "/usr"].map(PathBuf::from)) {
        folders.extend(python_folders(&prefix));
    }
    folders.retain(|folder| folder.is_dir());
    folders
}

/// `PREFIX/lib/python3.*/site-packages/nvidia/*/lib`.
fn python_folders(prefix: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for python in files(&prefix.join("lib"), "python3") {
        for packages in ["site-packages", "dist-packages"] {
            folders.extend(files(&python.join(packages).join("nvidia"), "").into_iter().map(|path| path.join("lib")));
        }
    }
    folders
}
