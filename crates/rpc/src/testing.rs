//! Things for tests.
