"""RetinaMask network: backbone, feature pyramid, heads, losses and detections."""
