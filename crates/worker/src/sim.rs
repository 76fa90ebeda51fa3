//! An engine without a GPU, over the library beside it.
