//! `nvml-simctl`: what hardware, kernel, tenants and misfortune do to the simulated GPUs.

fn main() {}
