module composefs.example/zip

go 1.21
