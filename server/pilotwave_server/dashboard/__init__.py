"""The web page: a face that shows what the slices know and passes on what people want."""
