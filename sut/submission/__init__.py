"""From records to MLCommons' submission tree."""
