//! Micro-benchmarks of the hot paths: `cargo bench --bench micro`. Times, so they depend on the machine and its load;
//! what must not get worse is counted in instructions by `bench/instructions`.

mod hot;

use divan::Bencher;
use divan::counter::BytesCount;

fn main() {
    divan::main();
}

#[divan::bench(args = [1, 100, 5000])]
fn core_crash(bencher: Bencher<'_, '_>, services: usize) {
    let mut core = hot::Core::new(services);
    bencher.bench_local(|| core.crash());
}

#[divan::bench(args = [1, 100, 5000])]
fn core_stop_and_start(bencher: Bencher<'_, '_>, services: usize) {
    let mut core = hot::Core::new(services);
    bencher.bench_local(|| core.stop_and_start());
}

#[divan::bench]
fn start_plan(bencher: Bencher<'_, '_>) {
    let start = hot::Start::new();
    bencher.bench_local(|| start.plan());
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn log_pump(bencher: Bencher<'_, '_>) {
    const BYTES: usize = 16_000_000;
    let mut room = hot::Room::new();
    bencher.counter(BytesCount::new(BYTES)).bench_local(|| room.flood(BYTES));
}

#[divan::bench(args = [1, 100], sample_count = 50, sample_size = 1)]
fn store_commit(bencher: Bencher<'_, '_>, wants: usize) {
    let mut database = hot::Database::new();
    bencher.bench_local(|| database.commit(wants));
}
