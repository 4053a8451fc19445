"""What the cache policy is made of: keys, what may be kept, how it is written, calls that several clients share."""
