"""Says what memory is free, how much narrow layers may take, and what a load will take."""
