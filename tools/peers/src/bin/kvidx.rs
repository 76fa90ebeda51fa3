//! KVIDX-1 with the system's allocator: speed and exactness.

fn main() -> std::process::ExitCode {
    kvatlas_peers::program::main(None)
}
