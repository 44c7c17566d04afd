//! Compiles the host agent's eBPF program and, with the feature `dpdk`, binds the installed DPDK for `src/dpdk`.

use std::env;
use std::path::Path;
use std::process::{Command, exit};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let done = compile_ebpf();
    #[cfg(feature = "dpdk")]
    let done = done.and_then(|()| dpdk::bind());
    if let Err(message) = done {
        println!("cargo::error={message}");
        exit(1);
    }
}

/// For the kernel of the machine that will run it, which is of this one's architecture.
fn compile_ebpf() -> Result<(), String> {
    let source = "src/agent/bpf/decapsulate.c";
    println!("cargo::rerun-if-changed={source}");
    println!("cargo::rerun-if-env-changed=CLANG");
    let variable = |name| env::var(name).map_err(|e| format!("{name}: {e}"));
    let object = Path::new(&variable("OUT_DIR")?).join("decapsulate.o");
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let mut command = Command::new(&clang);
    command.args(["-O2", "-target", "bpf", "-Wall", "-Wextra", "-Werror", "-c", source, "-o"]).arg(object);
    // Where Debian keeps the kernel's <asm/types.h>.
    command.arg(format!("-I/usr/include/{}-linux-gnu", variable("CARGO_CFG_TARGET_ARCH")?));
    let help = "On Debian: apt-get install clang linux-libc-dev. CLANG names another compiler";
    let output = command.output().map_err(|error| {
        format!("{clang}, which compiles the host agent's eBPF program ({source}), does not run: {error}. {help}")
    })?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr).replace('\n', "; ");
            Err(format!("{clang} does not compile {source} for eBPF: {said}. {help}"))
        }
    }
}

#[cfg(feature = "dpdk")]
mod dpdk {
    use std::env;
    use std::panic;
    use std::path::{Path, PathBuf};

    const OLDEST: &str = "22.11";
    const HELP: &str = "On Debian: apt-get install libdpdk-dev pkg-config clang libclang-dev. What needs no router builds \
                        without DPDK: cargo build --no-default-features";

    /// Functions that [`crate::dpdk`] calls; everything else of DPDK stays out of the bindings.
    const FUNCTIONS: [&str; 36] = [
        "slr_.*",
        "rte_dev_probe",
        "rte_dev_remove",
        "rte_eal_cleanup",
        "rte_eal_get_lcore_state",
        "rte_eal_get_runtime_dir",
        "rte_eal_init",
        "rte_eal_remote_launch",
        "rte_eth_allmulticast_enable",
        "rte_eth_dev_adjust_nb_rx_tx_desc",
        "rte_eth_dev_close",
        "rte_eth_dev_configure",
        "rte_eth_dev_get_port_by_name",
        "rte_eth_dev_info_get",
        "rte_eth_dev_set_mtu",
        "rte_eth_dev_start",
        "rte_eth_dev_stop",
        "rte_eth_macaddr_get",
        "rte_eth_promiscuous_enable",
        "rte_eth_rx_queue_setup",
        "rte_eth_stats_get",
        "rte_eth_tx_queue_setup",
        "rte_free",
        "rte_get_tsc_hz",
        "rte_hash_add_key_data",
        "rte_hash_create",
        "rte_hash_free",
        "rte_hash_lookup_bulk_data",
        "rte_lcore_is_enabled",
        "rte_mbuf_dyn_rx_timestamp_register",
        "rte_mempool_avail_count",
        "rte_mempool_free",
        "rte_pktmbuf_free_bulk",
        "rte_pktmbuf_pool_create",
        "rte_strerror",
        "rte_zmalloc",
    ];

    /// Libraries that those functions live in. Newer releases split `rte_eal`; what a release lacks is skipped.
    const LIBRARIES: [&str; 7] =
        ["rte_hash", "rte_ethdev", "rte_mbuf", "rte_mempool", "rte_ring", "rte_eal", "rte_log"];

    pub fn bind() -> Result<(), String> {
        let header = "src/dpdk/wrapper.h";
        let shim = "src/dpdk/shim.c";
        println!("cargo::rerun-if-changed={header}");
        println!("cargo::rerun-if-changed={shim}");
        let out = PathBuf::from(env::var("OUT_DIR").map_err(|e| format!("OUT_DIR: {e}"))?);

        let library = pkg_config::Config::new()
            .atleast_version(OLDEST)
            .cargo_metadata(false)
            .probe("libdpdk")
            .map_err(|_| format!("DPDK {OLDEST} or later was not found by pkg-config (libdpdk). {HELP}"))?;

        // An upgrade of DPDK changes these.
        for file in ["rte_build_config.h", "rte_version.h"] {
            for path in library.include_paths.iter().map(|path| path.join(file)).filter(|path| path.exists()) {
                println!("cargo::rerun-if-changed={}", path.display());
            }
        }
        generate(header, &library, &out.join("dpdk.rs"))?;
        compile(shim, &library)?;

        // After the shim, which needs them. The linker runs with --as-needed: a program that calls none of this does
        // not depend on DPDK.
        for path in &library.link_paths {
            println!("cargo::rustc-link-search=native={}", path.display());
        }
        for name in LIBRARIES.iter().filter(|name| library.libs.iter().any(|lib| lib == *name)) {
            println!("cargo::rustc-link-lib=dylib={name}");
        }
        Ok(())
    }

    /// What pkg-config says beside include paths, and the pkg-config crate drops.
    fn flags() -> Vec<&'static str> {
        let mut flags = vec!["-include", "rte_config.h"];
        if env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("x86_64") {
            flags.push("-march=corei7");
        }
        flags
    }

    fn generate(header: &str, library: &pkg_config::Library, into: &Path) -> Result<(), String> {
        let mut builder = bindgen::Builder::default()
            .header(header)
            .clang_args(library.include_paths.iter().map(|path| format!("-I{}", path.display())))
            .clang_args(flags())
            .rust_edition(bindgen::RustEdition::Edition2024)
            .allowlist_var("rte_eth_fp_ops")
            .allowlist_var("SLR_.*|RTE_HASH_LOOKUP_BULK_MAX")
            .allowlist_type("slr_mbuf_offset")
            // Their layouts differ between releases and hold unions without names: reached by offset instead.
            .opaque_type("rte_mbuf|rte_mempool|rte_device")
            .default_enum_style(bindgen::EnumVariation::ModuleConsts)
            .layout_tests(true)
            .derive_default(true)
            .formatter(bindgen::Formatter::None)
            .generate_comments(false);
        for function in FUNCTIONS {
            builder = builder.allowlist_function(function);
        }
        // Without libclang bindgen panics; its text says nothing about packages.
        panic::set_hook(Box::new(|_| ()));
        let bindings = panic::catch_unwind(panic::AssertUnwindSafe(|| builder.generate()));
        drop(panic::take_hook());
        let bindings = bindings
            .map_err(|_| format!("libclang, which reads DPDK's headers, could not be loaded. {HELP}"))?
            .map_err(|e| format!("{} could not be bound: {e}. {HELP}", header).replace('\n', " "))?;
        bindings.write_to_file(into).map_err(|e| format!("{}: {e}", into.display()))
    }

    fn compile(shim: &str, library: &pkg_config::Library) -> Result<(), String> {
        let mut build = cc::Build::new();
        build.file(shim).includes(&library.include_paths).warnings(false);
        for flag in flags() {
            build.flag(flag);
        }
        build
            .try_compile("slr_dpdk_shim")
            .map_err(|e| format!("{shim} does not compile: {e}. {HELP}").replace('\n', " "))
    }
}
