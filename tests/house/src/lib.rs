//! Nothing: the checks are in `tests/house.rs`.
