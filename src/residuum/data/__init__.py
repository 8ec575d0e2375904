"""From a data spec to batches on the device: sources, decoding, augmentation, loaders."""
