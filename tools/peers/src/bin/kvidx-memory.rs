//! KVIDX-1 with an allocator that counts live bytes, which costs speed: memory only.

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

fn main() -> std::process::ExitCode {
    kvatlas_peers::program::main(Some(|| ALLOCATOR.current_usage()))
}
