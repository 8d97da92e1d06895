"""Using a network: from photo to matte, cutout and composite."""
